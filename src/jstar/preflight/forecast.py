"""Of every size on the GPUs of a study: memory, speed, checkpoints, evaluation; what is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jstar.config import Study
from jstar.data.check import source_shape
from jstar.data.prepare import split_of
from jstar.errors import JstarError
from jstar.evaluate.cost import evaluation_flops
from jstar.hardware import GIB, PLANNED, Gpu, find_gpu
from jstar.layout import Layout
from jstar.model import flops, model_config, parameters
from jstar.pool import in_processes
from jstar.preflight.roofline import (
    ATTENTION,
    LINK,
    MATRIX,
    MEMORY,
    Machine,
    images_per_second,
    mfu,
)
from jstar.progress import clock
from jstar.rehearsed import Rehearsal, find_rehearsal
from jstar.train.events import TrainingEvents, run_events
from jstar.train.footprint import MARGIN, Cut, Footprint, Load, choose_cut
from jstar.train.loop import SAVING_SHARE
from jstar.train.stop import SLACK
from jstar.train.trace import load_compiler

COPY = 20e9  # bytes/s from a GPU to pinned memory (PCIe 4 has 32e9, 5 has 64e9); assumed
PROCESS_BYTES = 3 * GIB  # of a process' private memory: torch, CUDA's context; assumed
RESERVE = 1.25  # queues, restarts and what the roofline does not know


@dataclass(frozen=True)
class SizeForecast:
    """One size on the study's GPUs. Seconds are of one run."""

    load: Load
    cut: Cut
    footprint: Footprint
    images_per_second: float
    mfu: float
    seeds: int
    training: float
    copy_bytes: float  # of a node's part of a checkpoint and of a snapshot, on their way to disk
    save: float  # seconds in which a checkpoint is written, while training goes on
    saving: float  # share of the wall-clock time in which training stands still for one
    notice: float  # seconds before a job's time limit at which it has to be told
    evaluation: float  # seconds of one GPU
    measured: Rehearsal | None  # whose numbers stand in place of computed ones
    elsewhere: tuple[str, ...]  # images/s (MFU) on each of `_gpus()`, and on one core here

    @property
    def seconds(self) -> float:
        """Of all its runs, with their checkpoints."""
        return self.seeds * self.training / (1 - self.saving)


@dataclass(frozen=True)
class Preflight:
    """What is printed, and what stands against the study: one clause a fault."""

    text: str
    faults: tuple[str, ...]


def preflight(layout: Layout) -> Preflight:
    """Compute a study that trains on GPUs; none of them need be here. Empty for one on CPUs."""
    study = layout.study
    if not study.resources.train_gpus:
        return Preflight("", ())
    gpu = find_gpu(study.resources.gpu)
    assert gpu is not None  # resources.gpu is one of them
    data = image_bytes(study)
    sizes, faults = list[SizeForecast](), list[str]()
    tasks = [
        (study, entry.name, data, gpu, find_rehearsal(layout, entry.name)) for entry in study.ladder
    ]
    if study.train.compile:
        load_compiler()
    for found in in_processes(_forecast_or_fault, tasks, "plan", "sizes"):
        (faults if isinstance(found, str) else sizes).append(found)
    faults += _host_faults(study, sizes, data)
    faults += _evaluation_faults(study, sizes)
    return Preflight("\n".join(_lines(study, sizes, data, gpu)), tuple(faults))


def image_bytes(study: Study) -> float:
    """Of the prepared images: 8-bit pixels, or the means and deviations of latents in 16 bits."""
    count, *shape = source_shape(study.dataset)
    latents = study.dataset.vae is not None or study.dataset.source == "edm2"
    each = 2 * 2 if latents else 1
    return float(split_of(study.dataset, count).train) * shape[0] * shape[1] * shape[2] * each


def _forecast_or_fault(*size: Any) -> SizeForecast | str:
    """Its forecast, or the sentence that stands against the size."""
    try:
        return _forecast(*size)
    except JstarError as error:
        return str(error)


def _forecast(
    study: Study, name: str, data: float, gpu: Gpu, known: Rehearsal | None
) -> SizeForecast:
    """Raises JstarError where the size fits in no way that the study allows."""
    resources, config, entry = study.resources, study.train_of(name), study.entry(name)
    count, *sides = source_shape(study.dataset)
    place = (sides[0], sides[1], sides[2])
    shape, world = model_config(study.model, entry, place, 0), resources.processes
    events = run_events(study, name, place, world)
    load = Load(name, shape, config, world, data, _chunk_bytes(events, place, world))
    cut, footprint = choose_cut(load, gpu.memory, gpu.usable)
    machine = Machine.of(gpu, bf16=config.precision == "bf16", nodes=resources.train_nodes)
    speed, share = images_per_second(load, cut, machine), mfu(load, cut, machine)
    weights, lengths = 4.0 * parameters(shape), len(config.ema)
    state = weights * (3 + lengths)
    save = resources.save_seconds(state, sharded=cut.shard)
    stall = state / (world if cut.shard else 1) / COPY
    if known is not None:
        share, speed = share * known.images_per_second / speed, known.images_per_second
        save = known.save_seconds
    copied = state / (resources.train_nodes if cut.shard else 1) + weights * lengths
    interval = max(config.checkpoint_seconds, save, stall * (1 / SAVING_SHARE - 1))
    chunk = events.chunk_steps * events.batch / speed
    reading = Machine.of(gpu, bf16=study.evaluate.precision == "bf16")
    work = evaluation_flops(study, events, split_of(study.dataset, count), flops(shape))
    evaluation = work / reading.matrix
    if known is not None and known.evaluate_seconds is not None:
        networks = len(events.snapshots) * len(study.lengths) + len(events.branches)
        evaluation = networks * known.evaluate_seconds
    return SizeForecast(
        load, cut, footprint, speed, share, len(entry.seeds),
        events.total_images / speed, copied, save, stall / (stall + interval),
        2 * save + chunk + SLACK, evaluation, known, _elsewhere(study, load),
    )  # fmt: skip


def _chunk_bytes(events: TrainingEvents, shape: tuple[int, int, int], world: int) -> float:
    return 4.0 * shape[0] * shape[1] * shape[2] * events.chunk_steps * events.batch / world


def _host_faults(study: Study, sizes: list[SizeForecast], data: float) -> Iterator[str]:
    resources = study.resources
    for size in sizes:
        needed = _host(study, size, data)
        if needed > resources.train_mem_mb * 1e6:
            yield (
                f"{size.load.name} needs {needed / 1e6:,.0f} MB of a node's memory, "
                f"resources.train_mem_mb = {resources.train_mem_mb} is less"
            )


def _evaluation_faults(study: Study, sizes: list[SizeForecast]) -> Iterator[str]:
    limit = study.resources.evaluate_minutes
    worst = max(sizes, key=lambda size: size.evaluation, default=None)
    if worst is None:
        return
    minutes = worst.evaluation / study.evaluate.shards / 60
    if minutes > limit:
        yield (
            f"{worst.load.name} needs {minutes:,.0f} minutes in each of {study.evaluate.shards} "
            f"evaluation jobs, resources.evaluate_minutes = {limit} is less; "
            f"evaluate.shards: {-(-worst.evaluation // (60 * limit)):.0f} would do"
        )


def _host(study: Study, size: SizeForecast, data: float) -> float:
    """Bytes of a node: its processes, what is on its way to the disk, and the images once."""
    return PROCESS_BYTES * study.resources.train_gpus + size.copy_bytes + data


def _lines(study: Study, sizes: list[SizeForecast], data: float, gpu: Gpu) -> Iterator[str]:
    resources = study.resources
    world = resources.processes
    measured = [size.load.name for size in sizes if size.measured is not None]
    if measured:
        yield (
            f"Measured by jstar rehearse: images/s, save and evaluate of {', '.join(measured)}; "
            "memory is counted also of these."
        )
    head = "All else is computed" if measured else "Computed, not measured"
    yield (
        f"{head}: {world} x {gpu.name} a run ({gpu.memory / GIB:.1f} GiB, "
        f"{gpu.usable / GIB:.1f} usable), images {data / 1e9:.3g} GB. Assumed are {MATRIX:.0%} of "
        f"the makers' FLOP/s in matrix products, {ATTENTION:.0%} in attention, {MEMORY:.0%} of the "
        f"memory's bandwidth, {LINK:.0%} of the links', {resources.disk_gb_per_second:g} GB/s from "
        f"a node to the disk, "
        f"{COPY / 1e9:g} GB/s from a GPU to pinned memory; "
        f"{MARGIN - 1:.0%} of the memory is left for what a count cannot see."
    )
    if not sizes:
        return
    yield ""
    yield (
        f"{'size':<12}{'GPU GiB':>8}{'state':>7}{'kept':>7}{'work':>6}{'images':>7}  "
        f"{'microbatch':<20}{'host GiB':>8}{'save':>7}{'stall':>7}{'images/s':>10}{'MFU':>5}"
        f"{'training':>11}{'evaluate':>10}  speed"
    )
    for size in sizes:
        yield _row(study, size, data)
    yield ""
    yield from _machines(sizes)
    yield ""
    training = sum(s.seconds for s in sizes) * world / 3600
    evaluation = sum(s.seeds * s.evaluation for s in sizes) / 3600
    total = RESERVE * (training + evaluation)
    yield (
        f"Computed for the whole study: {training:,.0f} GPU-hours of training with its checkpoints "
        f"and {evaluation:,.1f} of evaluation; with {RESERVE - 1:.0%} in reserve {total:,.0f} "
        f"GPU-hours, {total / world / 24:.1f} days of {world} GPUs."
    )
    yield (
        f"Of the wall-clock time {max(s.saving for s in sizes):.2%} at most goes into saving; "
        "compiling and waiting are not computed, jstar status tells them of a run. A job has to "
        f"be told {max(s.notice for s in sizes):,.0f} seconds before its time limit, or be in one "
        "of SLURM that says when it ends (22.05 or later)."
    )
    unread = [length for length in study.train.ema if length not in study.lengths]
    if unread:
        words = ", ".join(f"{length:g}" for length in unread)
        yield f"train.ema: the averages of length {words} are stored and never read by evaluate."


def _row(study: Study, size: SizeForecast, data: float) -> str:
    f = size.footprint
    return (
        f"{size.load.name:<12}{MARGIN * f.total / GIB:>8.1f}{(f.state + f.gathered) / GIB:>7.1f}"
        f"{f.saved / GIB:>7.1f}{(f.workspace + f.inputs) / GIB:>6.1f}{f.images / GIB:>7.1f}  "
        f"{size.cut.words(size.load.share):<20}{_host(study, size, data) / GIB:>8.0f}"
        f"{size.save:>6.0f}s{size.saving:>7.2%}{size.images_per_second:>10,.0f}"
        f"{size.mfu:>5.2f}{clock(size.training):>11}{clock(size.evaluation):>10}  "
        f"{'computed' if size.measured is None else 'measured'}"
    )


def _machines(sizes: list[SizeForecast]) -> Iterator[str]:
    """Every size on other GPUs, as many of them, and on one core of this processor."""
    names = [*(gpu.name for gpu in _gpus()), "this CPU"]
    yield f"{'images/s (MFU)':<16}" + "".join(f"{name:>16}" for name in names)
    for size in sizes:
        yield f"{size.load.name:<16}" + "".join(f"{speed:>16}" for speed in size.elsewhere)


def _gpus() -> list[Gpu]:
    return [gpu for name in PLANNED if (gpu := find_gpu(name)) is not None]


def _elsewhere(study: Study, load: Load) -> tuple[str, ...]:
    """See `SizeForecast.elsewhere`."""
    bf16, nodes, found = load.config.precision == "bf16", study.resources.train_nodes, []
    for gpu in _gpus():
        try:
            cut, _ = choose_cut(load, gpu.memory, gpu.usable)
        except JstarError:
            found.append("does not fit")
            continue
        machine = Machine.of(gpu, bf16=bf16, nodes=nodes)
        speed, share = (f(load, cut, machine) for f in (images_per_second, mfu))
        found.append(f"{speed:,.0f} ({share:.2f})")
    # A core's own step, of float32, moves up to twice as many bytes as this trace: a few percent
    # of its time.
    config = load.config.model_copy(update={"batch": load.share})
    alone = replace(load, config=config, world=1, image_bytes=0.0, chunk_bytes=0.0)
    cut = Cut(alone.share, recompute=False, shard=False, resident=False)
    here = Machine.measured(load.shape)
    speed, share = (f(alone, cut, here) for f in (images_per_second, mfu))
    return (*found, f"{speed:,.3g} ({share:.2f})")
