"""Subcommands before anything is paid for: plan a study, the power of a design."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jstar.commands.options import (
    Config,
    Device,
    Results,
    Threads,
    app,
    layout_of,
    say_changed_source,
)
from jstar.constants import RESULTS
from jstar.errors import JstarError

if TYPE_CHECKING:
    from jstar.scaling.design import JointTruth, StudyDesign
    from jstar.scaling.laws import Array

POWER = 0.8  # the customary chance to see a difference that is there
EXPONENT, FLOOR_SHARE = 0.35, 0.9
STUDIES = 12


def _law(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="The law J = E + A N^-a + B D^-b")


def _errors(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Errors and studies")


def _sizes(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="The design, without --config")


Pilot = Annotated[
    Path | None, _law("parametric.csv of an earlier 'jstar fit', instead of a stated law")
]
Sigma = Annotated[
    str | None, _law("Noise scale of the pilot's law; default: total, where there is one")
]
SizeExponent = Annotated[float | None, _law(f"a, of parameters; default: {EXPONENT}")]
DataExponent = Annotated[float | None, _law(f"b, of images; default: {EXPONENT}")]
ImagesPerParameter = Annotated[
    float | None,
    _law(
        "D/N where the middle size is compute-optimal; default: 100 tokens a parameter, as in the "
        "digits study (Fashion-MNIST: 46), an image counting FLOPs / 6N tokens"
    ),
]
FloorShare = Annotated[
    float | None,
    _law(
        "J* as a share of the smallest loss of the study; default: "
        f"{FLOOR_SHARE}, as at large noise scales, on which verdicts rest"
    ),
]
RunNoise = Annotated[
    float, _errors("Scatter of the gap from run to run, relative (0.03: 3 %, as in our studies)")
]
SnapshotNoise = Annotated[
    float, _errors("Deviation of the gap along a run from the law, relative (0.05: as in ours)")
]
Correlation = Annotated[float, _errors("Of neighbouring snapshots' deviations (0.9: as in ours)")]
OptimalError = Annotated[
    float, _errors("Standard error of J*, relative; 0: the gap is measured directly")
]
Confidence = Annotated[float, _errors("Of intervals, a share")]
Studies = Annotated[int, _errors("Simulated studies of each world: more take longer, know better")]
Seed = Annotated[int, _errors("Seed of the synthetic studies")]


@app.command()
def plan(
    config: Config,
    results: Results = RESULTS,
    pilot: Pilot = None,
    sigma: Sigma = None,
    size_exponent: SizeExponent = None,
    data_exponent: DataExponent = None,
    images_per_parameter: ImagesPerParameter = None,
    floor_share: FloorShare = None,
    run_noise: RunNoise = 0.03,
    snapshot_noise: SnapshotNoise = 0.05,
    correlation: Correlation = 0.9,
    optimal_error: OptimalError = 0.0,
    studies: Studies = STUDIES,
    seed: Seed = 0,
    cores: Annotated[
        int | None, typer.Option("--cores", help="CPU cores of the machine; default: this one's")
    ] = None,
) -> None:
    """Print what a study costs and what it can tell, before anything is spent.

    Parameters, FLOPs, hours and disk of every run, and the time of every stage
    on so many cores. Below, whether its sizes
    cross, the images that would make them, the interval that alpha would get and
    how often the verdict would be right: 'corrected' if there is a floor J*,
    'raw' if there is none. For a study on GPUs also, computed and not measured:
    memory, speed, checkpoints and evaluation of every size; one that cannot fit
    is refused.
    """
    from jstar.plan import judge_design, law_words, plan_study, study_design
    from jstar.preflight import preflight

    layout = layout_of(config, results)
    study = layout.study
    errors = run_noise, snapshot_noise, correlation, optimal_error
    truth = _errors_of(errors, studies, study.fit.confidence)
    if cores is not None and cores < 1:
        raise JstarError(f"--cores = {cores} is not allowed, at least 1 is needed")
    say_changed_source(layout)
    typer.echo(plan_study(layout, cores))
    computed = preflight(layout)
    if computed.text:
        typer.echo(f"\n{computed.text}")
    if computed.faults:
        raise JstarError(f"{config}: {'; '.join(computed.faults)}")
    if study.kind != "scaling":
        return
    try:
        design = study_design(study)
    except JstarError as error:
        typer.echo(f"\n{error}")
        return
    law = _Law(pilot, sigma, size_exponent, data_exponent, images_per_parameter, floor_share)
    truth = law.of(design, truth)
    typer.echo(f"\nIf {law_words(truth, design)}:")
    chosen: dict[str, Any] = {"confidence": study.fit.confidence, "studies": studies, "seed": seed}
    for block in judge_design(design, truth, **chosen):
        typer.echo(block)


@app.command("rehearse")
def rehearse_command(
    config: Config,
    model: Annotated[
        str | None, typer.Option("--model", help="Only this size; default: all of the ladder")
    ] = None,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
    minutes: Annotated[float, typer.Option(help="Time for all sizes together")] = 5.0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That train a run; default: one a GPU, or one")
    ] = None,
) -> None:
    """Try every size on this machine for a few steps, and compare with the plan.

    Speed, memory, compiling, a checkpoint, a kill and a resume compared bit for
    bit, first losses against float32 on a CPU, a snapshot and its evaluation.
    Exit status 1 where something is off, or did not fit into the time: a sentence
    says what, by how much and what to change. Measured numbers are kept for 'jstar plan'.
    """
    begun = time.monotonic()  # before torch is imported, which may take a tenth of a short time
    from jstar.cluster.gpus import claim_gpus, visible_devices
    from jstar.rehearse import Node, rehearse
    from jstar.rehearse.compare import HEAD

    if not minutes > 0:
        raise JstarError(f"--minutes = {minutes:g}, it must be above 0")
    layout = layout_of(config, results)
    study, resources = layout.study, layout.study.resources
    models = [study.entry(model).name] if model else [entry.name for entry in study.ladder]
    gpus = 0 if device else min(resources.train_gpus, len(visible_devices()))
    if gpus and processes is not None:
        if processes > gpus:
            raise JstarError(f"--processes = {processes}, but {gpus} GPUs are to be had for a run")
        gpus = processes
    node = Node(
        processes or max(1, gpus), device, threads or (None if gpus else resources.train_threads)
    )
    with claim_gpus(gpus):
        left = 60 * minutes - (time.monotonic() - begun)
        found = rehearse(layout, node, left, models)
    lines = [*found.notes, HEAD, *(row.line for row in found.rows)]
    lines += [f"not rehearsed: {words}" for words in found.late]
    lines += [f"written for jstar plan: {path}" for path in found.written]
    typer.echo("\n".join([*lines, *found.faults]))
    raise typer.Exit(1 if found.faults or found.late else 0)


@app.command()
def power(
    config: Annotated[
        Path | None, typer.Option("--config", help="Study file whose design is judged")
    ] = None,
    alpha: Annotated[
        float | None, _law("True exponent of the gap in compute, for example -0.10: a = b = -2α")
    ] = None,
    against: Annotated[
        float | None, typer.Option(help="Exponent to tell alpha from, for example -0.12")
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(help="Seeds of each size; several times with --against; default: 1"),
    ] = None,
    sizes: Annotated[int, _sizes("Number of sizes, evenly spaced in ln N")] = 6,
    smallest: Annotated[float, _sizes("Parameters of the smallest size")] = 1e5,
    largest: Annotated[float, _sizes("Parameters of the largest size")] = 1e7,
    tokens: Annotated[float, _sizes("Tokens of an image: it costs 6 N tokens FLOPs")] = 64,
    images: Annotated[
        list[float] | None,
        _sizes("Images of every size; or once for each; default: what makes all sizes cross"),
    ] = None,
    flops: Annotated[
        list[float] | None, _sizes("The same in FLOPs: of every size, or once for each")
    ] = None,
    budget: Annotated[
        list[float] | None,
        _sizes("isoFLOP design: each size trained to each of these FLOPs, one point a run"),
    ] = None,
    snapshots: Annotated[int, _sizes("Snapshots of a run, log-spaced")] = 16,
    first: Annotated[float, _sizes("The first snapshot, as a share of a run")] = 0.03,
    pilot: Pilot = None,
    sigma: Sigma = None,
    size_exponent: SizeExponent = None,
    data_exponent: DataExponent = None,
    images_per_parameter: ImagesPerParameter = None,
    floor_share: FloorShare = None,
    run_noise: RunNoise = 0.03,
    snapshot_noise: SnapshotNoise = 0.05,
    correlation: Correlation = 0.9,
    optimal_error: OptimalError = 0.0,
    confidence: Confidence = 0.95,
    studies: Studies = STUDIES,
    seed: Seed = 0,
) -> None:
    """Say what a design would tell: its verdict, alpha's interval, one exponent from another.

    By synthetic studies of a stated design, or of a study's (--config), judged
    as 'jstar fit' judges them. The design is given by sizes and images or FLOPs.
    """
    from jstar.plan import judge_design, law_words, study_design
    from jstar.scaling.expected import expect

    errors = run_noise, snapshot_noise, correlation, optimal_error
    truth = _errors_of(errors, studies, confidence)
    if alpha is not None:
        if alpha >= 0:
            raise JstarError(
                f"power: --alpha = {alpha:g}, an exponent of a gap that falls is below 0"
            )
        if pilot or size_exponent or data_exponent:
            raise JstarError("power: --alpha states the exponents; so does the pilot, or a and b")
        size_exponent = data_exponent = -2 * alpha
    law = _Law(pilot, sigma, size_exponent, data_exponent, images_per_parameter, floor_share)
    runs = {"--images": images, "--flops": flops, "--budget": budget}
    given = [*(["--config"] if config else []), *(name for name, value in runs.items() if value)]
    if len(given) > 1:
        raise JstarError(f"power: {' and '.join(given)} exclude each other")
    if config is not None:
        design = study_design(layout_of(config, RESULTS).study)
    else:
        design = _stated_design(
            (smallest, largest, sizes), tokens, runs, (snapshots, first), law, truth
        )
    counts = sorted(set(seeds or ([1] if against is None else [1, 2, 4, 8])))
    if counts[0] < 1:
        raise JstarError(f"power: --seeds = {counts[0]}, at least 1 is needed")
    if seeds or config is None:
        design = replace(design, seeds=(counts[0],) * len(design.params))
    truth = law.of(design, truth)
    if against is not None and not abs(against - truth.alpha) > 1e-9:
        raise JstarError(f"power: both exponents are {against:g}, they must differ")
    typer.echo(f"If {law_words(truth, design)}:")
    chosen: dict[str, Any] = {"confidence": confidence, "studies": studies, "seed": seed}
    for block in judge_design(design, truth, **chosen):
        typer.echo(block)
    if against is None:
        return
    typer.echo(f"\n{'seeds':>5}{'runs':>6}{'alpha':>20}   power against {against:g}")
    enough = ""
    for count in counts:
        one = replace(design, seeds=(count,) * len(design.params))
        found = expect(one, truth, **chosen, worlds=("optimal",))
        share, interval = found.power(against), f"{found.alpha:.3f} ± {found.width / 2:.2g}"
        typer.echo(f"{count:>5}{count * len(one.params):>6}{interval:>20}   {share}")
        if not enough and share.value >= POWER:
            enough = f"{count} seeds a size tell {truth.alpha:.3g} from {against:g} in {share}"
    none = f"none of these reaches a power of {POWER:g}: more seeds, compute, or less noise"
    typer.echo(f"{enough} of {studies} simulated studies" if enough else none)


@dataclass(frozen=True)
class _Law:
    """What the options say of the law."""

    pilot: Path | None
    sigma: str | None
    size_exponent: float | None
    data_exponent: float | None
    images_per_parameter: float | None
    floor_share: float | None

    def of(self, design: "StudyDesign", errors: "JointTruth") -> "JointTruth":
        """The law with the floor J*, in the units of a design."""
        from jstar.scaling.planning import pilot_truth, stated_truth

        stated = (self.size_exponent, self.data_exponent, self.images_per_parameter,
                  self.floor_share)  # fmt: skip
        if self.pilot is not None:
            if any(value is not None for value in stated):
                raise JstarError(
                    "--pilot gives the law: --size-exponent, --data-exponent, "
                    "--images-per-parameter and --floor-share state another"
                )
            return pilot_truth(self.pilot, self.sigma, design, errors)
        if self.sigma is not None:
            raise JstarError(f"--sigma = {self.sigma} chooses a law of --pilot, which is missing")
        a, b = (EXPONENT if value is None else value for value in stated[:2])
        share = FLOOR_SHARE if self.floor_share is None else self.floor_share
        return stated_truth(design, replace(errors, a=a, b=b), self.images_per_parameter, share)


def _errors_of(
    errors: tuple[float, float, float, float], studies: int, confidence: float
) -> "JointTruth":
    """A law with these errors, once they are possible."""
    from jstar.scaling.design import JointTruth

    run_noise, snapshot_noise, correlation, optimal_error = errors
    for name, value in (("--run-noise", run_noise), ("--snapshot-noise", snapshot_noise)):
        if not value > 0:
            raise JstarError(f"{name} = {value:g}, it must be above 0")
    if not 0 <= correlation < 1:
        raise JstarError(f"--correlation = {correlation:g}, allowed are 0 up to below 1")
    if not 0 <= optimal_error < 1:
        raise JstarError(f"--optimal-error = {optimal_error:g}, allowed are 0 up to below 1")
    if not 0.5 < confidence < 1:
        raise JstarError(f"--confidence = {confidence:g}, allowed is above 0.5 and below 1")
    if studies < 2:
        raise JstarError(f"--studies = {studies}, at least 2 are needed")
    return JointTruth(
        run_noise=run_noise, snapshot_noise=snapshot_noise, correlation=correlation,
        optimal_error=optimal_error,
    )  # fmt: skip


def _stated_design(
    ladder: tuple[float, float, int], tokens: float, runs: dict[str, list[float] | None],
    seen: tuple[int, float], law: _Law, truth: "JointTruth",
) -> "StudyDesign":  # fmt: skip
    """The design that power's own options say: sizes, and images, FLOPs or isoFLOP budgets."""
    import numpy as np

    from jstar.scaling.design import COMPUTE, StudyDesign
    from jstar.scaling.planning import crossing_images

    (smallest, largest, sizes), (snapshots, first) = ladder, seen
    if sizes < 2 or not 0 < smallest < largest or not tokens > 0:
        raise JstarError(
            f"power: {sizes} sizes from {smallest:g} to {largest:g} parameters of {tokens:g} "
            "tokens, at least 2 increasing sizes are needed"
        )
    if snapshots < 1 or not 0 < first < 1:
        raise JstarError(
            f"power: {snapshots} snapshots from {first:g} of a run on, at least 1 is needed, from "
            "a share between 0 and 1 on"
        )
    for name, values in runs.items():
        if values and (min(values) <= 0 or (name != "--budget" and len(values) not in (1, sizes))):
            raise JstarError(
                f"power: {name} = {', '.join(f'{v:g}' for v in values)}, allowed is a number above "
                f"0, given once or {sizes} times, once a size"
            )
    params = np.geomspace(smallest, largest, sizes)
    cost = COMPUTE * tokens * params
    if runs["--budget"]:
        return StudyDesign.iso_flop(params.tolist(), sorted(runs["--budget"]), cost.tolist())

    def to(images: "Array") -> StudyDesign:
        made = StudyDesign.even(params.tolist(), images.tolist(), snapshots, first)
        return replace(made, flops_per_image=tuple(cost))

    if runs["--images"]:
        return to(np.full(sizes, runs["--images"]))
    if runs["--flops"]:
        return to(np.full(sizes, runs["--flops"]) / cost)
    rough = to(np.full(sizes, 1e6))
    return to(crossing_images(rough, law.of(rough, truth)))
