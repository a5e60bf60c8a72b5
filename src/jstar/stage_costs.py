"""What the stages of a study cost: for `jstar plan`, and the time left that `jstar study` shows.

Training and measuring are FLOPs over a speed, J* two matrix products and exponentials
(benchmarks/optimal.py), the rest are processor seconds that were measured once and are rough.
"""

import math
from dataclasses import dataclass
from statistics import median

from jstar.config import Study
from jstar.figures import figures_of
from jstar.layout import Layout
from jstar.progress import clock
from jstar.records import read_json
from jstar.train.events import run_events
from jstar.train.status import RunStatus

# Processor seconds of one core, as measured on 2 cores of a server.
START = 2.0  # a job until it works: Python, torch, the study
READ = 2e-9  # a byte of an image, prepared
EXPONENTIAL = 1.5e-9  # a pair of points at one noise scale
FIT_SCALE = 0.7  # a noise scale, 300 studies of each law (benchmarks/scaling_speed.py)
FIGURE = 2.0
NOTEBOOK = 6.0
REPORT = 6.0
PREPARE, MIDDLE, FIT, FIGURES = range(4)  # what waits for what


@dataclass(frozen=True)
class StageCost:
    """A stage: `seconds` of one core in all its `jobs`, `longest` of the longest of them.

    Stages of one `phase` run beside one another.
    """

    stage: str
    phase: int
    jobs: int
    seconds: float
    longest: float


def stage_costs(
    layout: Layout, count: int, shape: tuple[int, int, int], training: list[float],
    tuning: list[float], speeds: dict[str, float], product: float,
) -> list[StageCost]:  # fmt: skip
    """The cost of every stage of a study on `count` images of a shape (C, H, W).

    training, tuning: seconds of each run and of each size's trials. speeds: FLOP/s of a job that
    trains a size. product: FLOP/s of one core in a matrix product.
    """
    study, dim = layout.study, math.prod(shape)
    sigmas, threads = study.sigmas.count, study.resources.train_threads
    point = 2 * count * dim / product * (1 + study.dataset.mirror)  # with all images
    exact = study.optimal.queries * (2 * point + sigmas * count * EXPONENTIAL)
    oracle = study.evaluate.queries * (1 + sigmas) * point
    measured = [evaluate_seconds(study, m, shape, speeds[m]) for m, _ in study.runs()]
    figures = figures_of(study.kind, len(study.lengths), study.train.cooldown is not None)
    scaling = study.kind == "scaling"
    return [
        _cost("prepare", PREPARE, [START + count * dim * READ]),
        _cost("optimal", MIDDLE, [START + exact, START + oracle]),
        _cost("tune", MIDDLE, tuning, threads),
        _cost("train", MIDDLE, training, threads),
        _cost("evaluate", MIDDLE, measured, threads),
        _cost("fit", FIT, [START + FIT_SCALE * (sigmas + 1)] if scaling else [START]),
        _cost("figures", FIGURES, [FIGURE] * len(figures) + [NOTEBOOK] * scaling + [REPORT]),
    ]


def evaluate_seconds(
    study: Study, model: str, shape: tuple[int, int, int], speed: float
) -> float:  # fmt: skip
    """Seconds of measuring every snapshot of a run: forward passes of all draws."""
    events = run_events(study, model, shape)
    snapshots = len(events.snapshots) * len(study.lengths) + len(events.branches)
    splits = 1 + bool(study.dataset.holdout)
    draws = study.evaluate.queries * study.sigmas.count * splits
    return START + snapshots * draws * events.flops_per_image / 3 / speed


def _cost(stage: str, phase: int, jobs: list[float], threads: int = 1) -> StageCost:
    return StageCost(stage, phase, len(jobs), threads * sum(jobs), max(jobs, default=0.0))


def seconds_of(costs: list[StageCost], cores: int) -> float:
    """Seconds of a study on so many cores: each phase fills them, or lasts as its longest job."""
    total = 0.0
    for phase in (PREPARE, MIDDLE, FIT, FIGURES):
        there = [cost for cost in costs if cost.phase == phase]
        whole = sum(cost.seconds for cost in there)
        # J* and the fits use all cores in one job.
        alone = [c.longest for c in there if c.stage not in ("optimal", "fit")]
        total += max(whole / cores, *alone, 0.0)
    return total


def stage_table(costs: list[StageCost], cores: int, *, gpus: bool) -> str:
    """The costs as a printed table, and the time of the whole study."""
    lines = [f"{'stage':<16}{'jobs':>6}{'core time':>14}"]
    lines += [f"{c.stage:<16}{c.jobs:>6}{clock(c.seconds):>14}" for c in costs if c.jobs]
    if gpus:
        return "\n".join([*lines, "tune, train and evaluate in GPU time; the rest on CPU cores"])
    whole = clock(seconds_of(costs, cores))
    return "\n".join([*lines, f"{whole} from the images to the report, on {cores} cores."])


def seconds_left(layout: Layout, runs: list[RunStatus], cores: int) -> float | None:
    """Seconds until the report, from the speed that runs have shown; None before any has.

    Of training, measuring, fits and figures; J* is computed beside them.
    """
    study, speeds = layout.study, {}
    shape = _shape(layout)
    flops = {model: run_events(study, model, shape).flops_per_image for model, _ in study.runs()}
    every = dict(zip(study.runs(), runs, strict=True))
    for (model, seed), run in every.items():
        facts = layout.run(model, seed) / "run.json"
        if run.state == "finished":
            speeds[model] = float(read_json(facts)["flops_per_second"])
        elif run.images_per_second:
            speeds[model] = run.images_per_second * flops[model]
    if not speeds:
        return None
    usual = median(speeds.values())
    jobs = []
    for (model, seed), run in every.items():
        speed = speeds.get(model, usual)
        left = (run.total - run.images) * flops[model] / speed
        if not layout.losses(model, seed).is_file():
            left += evaluate_seconds(study, model, shape, speed)
        jobs.append(left)
    beside = max(1, cores // study.resources.train_threads)
    return max(sum(jobs) / beside, max(jobs)) + _after(layout, cores)


def _shape(layout: Layout) -> tuple[int, int, int]:
    from jstar.data.card import Card

    return Card.load(layout.data / "card.json").shape


def _after(layout: Layout, cores: int) -> float:
    """Seconds of the stages that follow the measurements."""
    study = layout.study
    figures = figures_of(study.kind, len(study.lengths), study.train.cooldown is not None)
    drawn = [not (layout.figures / f"{name}.png").is_file() for name in figures]
    left = FIGURE * sum(drawn) + NOTEBOOK + REPORT
    if not (layout.fits / "fits.json").is_file() and study.kind == "scaling":
        left += FIT_SCALE * (study.sigmas.count + 1)
    return left / cores
