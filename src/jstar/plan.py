"""What a study will cost and what it can tell, before anything is spent."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jstar.config import Study
from jstar.config.base import AUTO
from jstar.constants import COOLDOWN
from jstar.data.check import source_shape
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.pool import cpu_count
from jstar.progress import clock
from jstar.records import read_json
from jstar.rehearsed import find_rehearsal, rehearsal_table
from jstar.scaling.design import JointTruth, StudyDesign
from jstar.scaling.expected import expect
from jstar.scaling.planning import Competition, competition, crossing_design
from jstar.scaling.verdict import ABOVE, CORRECTED, RAW

UTILISATION = 0.25  # of the measured matrix rate; public DiT trainers reach 20-25 % of the peak


@dataclass(frozen=True)
class RunPlan:
    """Cost of one training run, or of a size's tuning."""

    name: str
    params: int
    images: int
    flops: float
    device_seconds: float
    disk_bytes: int


def plan_study(layout: Layout, cores: int | None = None) -> str:
    """The plan of a study as printed tables: its runs and, where it tunes, the trials before them;
    then every stage, and the time of all on so many cores (default: those of this machine).

    Speed is, in this order: measured by a finished run of the same size, measured by a rehearsal,
    stated in `resources.flops_per_second`, or guessed from a matrix product timed now.
    """
    from jstar.model import model_config, parameters
    from jstar.stage_costs import stage_costs, stage_table
    from jstar.train.events import run_events
    from jstar.tune.trials import planned_images, planned_trials

    tuned_models, layout = layout.study.tuned_models, layout.tuned()
    study = layout.study
    count, *shape = source_shape(study.dataset)
    matrix_rate, stated = _matrix_rate(), study.resources.flops_per_second
    guessed = guessed_speed(study, matrix_rate)
    rows: list[RunPlan] = []
    tuning: list[RunPlan] = []
    cooldowns: list[float] = []  # FLOPs of each run's
    speeds: dict[str, float] = {}
    sources: set[str] = set()
    for name, seed in study.runs():
        # The label table costs no FLOPs, so the number of classes can wait for prepare.
        config = model_config(study.model, study.entry(name), (shape[0], shape[1], shape[2]), 0)
        run, chosen = run_events(study, name, (shape[0], shape[1], shape[2])), study.train_of(name)
        cost = run.flops_per_image
        measured, rehearsed = _measured(layout, name), find_rehearsal(layout, name)
        if measured is None and rehearsed is not None:
            measured = rehearsed.images_per_second * cost / rehearsed.processes
            sources.add("measured by jstar rehearse")
        elif measured is None and stated:
            sources.add("stated in resources.flops_per_second")
        elif measured is None:
            sources.add(f"guessed: {UTILISATION:.0%} of the fp32 matrix rate timed just now")
        else:
            sources.add("measured by finished runs")
        speeds[name] = speed = measured or guessed
        weights = 4 * parameters(config)
        snapshots = (len(run.snapshots) * len(chosen.ema) + len(run.branches)) * weights
        # Two checkpoints, each with weights, two Adam moments and the EMAs; every cooldown has
        # one of where it begins, and one more while it is trained.
        checkpoints = 2 + len(run.branches) + min(1, len(run.branches))
        state = checkpoints * weights * (3 + len(chosen.ema))
        images = run.total_images
        cooldowns.append(cost * (images - run.images))
        rows.append(
            RunPlan(f"{name}-s{seed}", parameters(config), images, cost * images,
                    cost * images / speed, snapshots + state)
        )  # fmt: skip
        if name in tuned_models and seed == study.entry(name).seeds[0]:
            images = planned_images(study, name, cost)
            trials = planned_trials(study, name)  # one checkpointed at a time
            tuning.append(
                RunPlan(f"tune {name}", parameters(config), images, cost * images,
                        cost * images / speed, (trials + 8) * weights)
            )  # fmt: skip
    costs = stage_costs(
        layout, count, (shape[0], shape[1], shape[2]), [row.device_seconds for row in rows],
        [row.device_seconds for row in tuning], speeds, matrix_rate,
    )  # fmt: skip
    stages = stage_table(costs, cores or cpu_count(), gpus=study.resources.train_gpus > 0)
    table = _table(layout, rows, tuning, count, sources, sum(cooldowns))
    blocks = _network_words(study, (shape[0], shape[1], shape[2]))
    return "\n\n".join(filter(None, [table, rehearsal_table(layout), blocks, stages]))


def _network_words(study: Study, shape: tuple[int, int, int]) -> str:
    """What new runs on this CPU would compute their networks by; nothing for runs on GPUs."""
    import torch

    from jstar.model import model_config
    from jstar.model.network_choice import NetworkChoice, choose_network, network_words
    from jstar.train.memory import keep_freed_memory

    if study.resources.train_gpus:
        return ""
    threads, choices = torch.get_num_threads(), dict[str, NetworkChoice]()
    torch.set_num_threads(study.resources.train_threads)
    keep_freed_memory()  # as a run does: what is timed here is its answer
    for entry in study.ladder:
        config = study.train_of(entry.name)
        if config.precision == "fp32" and not config.compile:
            part = config.batch if config.microbatch == AUTO else int(config.microbatch)
            network = model_config(study.model, entry, shape, 0)
            choices[entry.name] = choose_network(network, min(part, config.batch))
    torch.set_num_threads(threads)
    return network_words(choices) if choices else ""


def guessed_speed(study: Study, matrix_rate: float | None = None) -> float:
    """FLOP/s of one device, of which nothing was measured: stated, or a share of a matrix product.

    matrix_rate: FLOP/s of one core in a product; None: it is timed now.
    """
    resources = study.resources
    if resources.flops_per_second:
        return resources.flops_per_second
    return UTILISATION * resources.train_threads * (matrix_rate or _matrix_rate())


def _table(
    layout: Layout, runs: list[RunPlan], tuning: list[RunPlan], count: int, sources: set[str],
    cooldowns: float,
) -> str:  # fmt: skip
    study, rows = layout.study, [*tuning, *runs]
    devices = max(1, study.resources.train_gpus)
    before = f", after the tuning of {len(tuning)} sizes" if tuning else ""
    lines = [
        f"study '{study.study}': {len(runs)} runs on {count:,} images{before}",
        "",
        f"{'run':<16}{'parameters':>14}{'images':>15}{'passes':>8}{'FLOPs':>11}{'time':>12}"
        f"{'disk':>10}",
    ]
    for row in rows:
        lines.append(
            f"{row.name:<16}{row.params:>14,}{row.images:>15,}"
            f"{_passes(row.images / count):>8}"
            f"{row.flops:>11.3g}"
            f"{clock(row.device_seconds / devices):>12}{_bytes(row.disk_bytes):>10}"
        )
    seconds = sum(r.device_seconds for r in rows)
    lines.append(
        f"{'all':<16}{'':>37}{sum(r.flops for r in rows):>11.3g}{clock(seconds / devices):>12}"
        f"{_bytes(sum(r.disk_bytes for r in rows)):>10}"
    )
    unit = "GPU-hours" if study.resources.train_gpus else "hours of training, one run at a time"
    where = f" on {devices} GPUs a run" if devices > 1 else ""
    lines += ["", f"{seconds / 3600:.3g} {unit}{where}; speed {'; '.join(sorted(sources))}."]
    if cooldowns:
        share = cooldowns / sum(r.flops for r in runs)
        lines.append(f"Cooldowns are {share:.0%} of the runs' FLOPs.")
    return "\n".join(lines)


def _passes(value: float) -> str:
    """Times that a run sees the dataset, never with an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def study_design(study: Study) -> StudyDesign:
    """Sizes, seeds and the images of the fitted snapshots of a study's own process.

    Raises JstarError where there are not two sizes with a snapshot to fit.
    """
    from jstar.model import model_config, parameters
    from jstar.train.events import run_events

    shape = source_shape(study.dataset)[1:]
    found: dict[int, tuple[int, tuple[float, ...], float]] = {}
    for entry in study.ladder:
        if entry.variant is not None:
            continue
        params = parameters(model_config(study.model, entry, shape, 0))
        schedule = run_events(study, entry.name, shape)
        branches = [branch.end for branch in schedule.branches]
        fitted = branches if study.ema == COOLDOWN else schedule.snapshots
        seen = [float(step * schedule.batch) for step in fitted]
        seeds = found[params][0] if params in found else 0
        images = tuple(d for d in seen if d >= study.fit.min_images)
        found[params] = (seeds + len(entry.seeds), images, schedule.flops_per_image)
    if len(found) < 2 or not all(images for _, images, _ in found.values()):
        raise JstarError(
            f"study '{study.study}': {len(found)} sizes with snapshots from fit.min_images = "
            f"{study.fit.min_images} on, at least 2 are needed to say anything of its laws"
        )
    every = sorted(found)
    counts, kept, costs = zip(*(found[n] for n in every), strict=True)
    return StudyDesign(tuple(float(n) for n in every), kept, counts, costs)


def judge_design(
    design: StudyDesign, truth: JointTruth, *, confidence: float, studies: int, seed: int
) -> Iterator[str]:
    """Where sizes cross, what would make them, and what verdict and exponent would be worth.

    Block by block: crossings at once, a row of verdicts as soon as its studies are simulated.
    truth: the law with the floor J*.
    """
    now = competition(design, truth)
    lines = [_crossing_words(now)]
    designs = [("this design", design, truth)]
    if not now.complete:
        better, there = crossing_design(design, truth)
        times = _compute(better) / _compute(design)
        smaller = times ** (truth.b / (truth.a + truth.b))
        lines += [
            "Images per size that would make all of them cross: "
            + ", ".join(f"{steps[-1]:,.3g}" for steps in better.images)
            + f" ({times:.2g} times the training compute).",
            f"The same crossings at this compute: sizes {smaller:.2g} times smaller.",
        ]
        designs.append(("with those images", better, there))
    lines += [
        "",
        f"Of {studies} simulated studies with J* and {studies} without a floor, each judged as "
        "'jstar fit' judges a noise scale (± standard error):",
        f"{'':<18}{'crossings':>10}{'alpha':>17}{'corrected':>13}{'raw':>13}{'wrong':>13}",
        f"{'':<18}{'':>10}{'':>17}{'if J*':>13}{'if none':>13}",
    ]
    yield "\n".join(lines)
    for name, one, law in designs:
        sizes = competition(one, law)
        head = f"{name:<18}{f'{len(sizes.crossings)} of {sizes.sizes - 1}':>10}"
        try:
            found = expect(one, law, confidence=confidence, studies=studies, seed=seed)
        except JstarError as error:
            yield f"{head}   {error}"
            continue
        wrong = found.share("optimal", RAW, ABOVE), found.share("zero", CORRECTED, ABOVE)
        yield (
            f"{head}{f'{found.alpha:.3f} ± {found.width / 2:.2g}':>17}"
            f"{found.share('optimal', CORRECTED)!s:>13}{found.share('zero', RAW)!s:>13}"
            f"{max(wrong, key=lambda share: share.value)!s:>13}"
        )


def law_words(truth: JointTruth, design: StudyDesign) -> str:
    """The law behind a judgement, in words."""
    params, images = design.middle
    by_size, by_data = truth.terms()
    best = images * (truth.a * by_size / (truth.b * by_data)) ** (-1 / truth.b)
    return (
        f"a = {truth.a:.3g}, b = {truth.b:.3g}, {params:,.3g} parameters optimal at {best:,.3g} "
        f"images; errors {truth.run_noise:.2g} a run, {truth.snapshot_noise:.2g} a snapshot with "
        f"correlation {truth.correlation:.2g}, {truth.optimal_error:.2g} of J*"
    )


def _crossing_words(found: Competition) -> str:
    """Whether sizes cross, and why some do not."""
    why = []
    if found.unfinished == found.sizes - 1:
        why.append("every smaller size is still the best when its images run out")
    elif found.unfinished:
        why.append(f"{found.unfinished} still the best when the images run out")
    if found.late:
        why.append(f"{found.late} overtaken before the larger one's first snapshot")
    count = len(found.crossings)
    head = f"No two of the {found.sizes} sizes cross"
    if count:
        at = ", ".join(f"{flops:.2g}" for flops in found.crossings)
        head = f"Sizes cross at {at} FLOPs: {count} crossing{'s' * (count > 1)}"
    return f"{head}: {'; '.join(why)}." if why else f"{head}."


def _compute(design: StudyDesign) -> float:
    """FLOPs of all runs."""
    last = np.array([steps[-1] for steps in design.images])
    return float((last * design.cost * np.array(design.seeds)).sum())


def _measured(layout: Layout, model: str) -> float | None:
    """FLOP/s of one device in a finished run of exactly this configuration, if there is one."""
    content = json.loads(layout.study.content("train", model))
    for seed in layout.study.entry(model).seeds:
        path = layout.run(model, seed) / "run.json"
        if path.is_file() and (run := read_json(path))["config"] == content:
            return float(run["flops_per_second"]) / int(run["processes"])
    return None


def _matrix_rate() -> float:
    """FLOP/s of fp32 matrix products on one core, timed for a fraction of a second."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    a @ a
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.3:
        a @ a
        done += 1
    seconds = time.perf_counter() - start
    torch.set_num_threads(threads)
    return done * 2 * 1024**3 / seconds


def _bytes(count: float) -> str:
    """1.5e9 -> '1.5 GB'."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
