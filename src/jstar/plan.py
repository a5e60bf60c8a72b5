"""What a study will cost, before anything is spent: FLOPs, hours and disk of every run."""

import json
import time
from dataclasses import dataclass

from jstar.data.check import source_shape
from jstar.layout import Layout
from jstar.progress import clock
from jstar.records import read_json

UTILISATION = 0.25  # of the measured matrix rate; public DiT trainers reach 20-25 % of the peak


@dataclass(frozen=True)
class RunPlan:
    """Cost of one training run."""

    name: str
    params: int
    images: int
    flops: float
    device_seconds: float
    disk_bytes: int


def plan_study(layout: Layout) -> str:
    """The plan of a study as a printed table.

    Speed is, in this order: measured by a finished run of the same size, stated in
    `resources.flops_per_second`, or guessed from a matrix product timed now.
    """
    from jstar.model import flops, model_config, parameters

    study = layout.study
    count, *shape = source_shape(study.dataset)
    guessed = study.resources.flops_per_second or UTILISATION * _matrix_rate()
    rows: list[RunPlan] = []
    sources: set[str] = set()
    for name, seed in study.runs():
        # The label table costs no FLOPs, so the number of classes can wait for prepare.
        config = model_config(study.model, study.entry(name), (shape[0], shape[1], shape[2]), 0)
        total = 3.0 * flops(config) * study.train.images
        measured = _measured(layout, name)
        if measured is None and study.resources.flops_per_second:
            sources.add("stated in resources.flops_per_second")
        elif measured is None:
            sources.add(f"guessed: {UTILISATION:.0%} of the fp32 matrix rate timed just now")
        else:
            sources.add("measured by finished runs")
        weights = 4 * parameters(config)
        snapshots = study.train.snapshots * len(study.train.ema) * weights
        # Two checkpoints, each with weights, two Adam moments and the EMAs.
        state = 2 * weights * (3 + len(study.train.ema))
        rows.append(
            RunPlan(f"{name}-s{seed}", parameters(config), study.train.images, total,
                    total / (measured or guessed), snapshots + state)
        )  # fmt: skip
    return _table(layout, rows, count, sources)


def _table(layout: Layout, rows: list[RunPlan], count: int, sources: set[str]) -> str:
    study = layout.study
    devices = max(1, study.resources.train_gpus)
    lines = [
        f"study '{study.study}': {len(rows)} runs of {study.train.images:,} images "
        f"({study.train.images / count:.3g} passes over {count:,})",
        "",
        f"{'run':<16}{'parameters':>14}{'FLOPs':>11}{'time':>12}{'disk':>10}",
    ]
    for row in rows:
        lines.append(
            f"{row.name:<16}{row.params:>14,}{row.flops:>11.3g}"
            f"{clock(row.device_seconds / devices):>12}{_bytes(row.disk_bytes):>10}"
        )
    seconds = sum(r.device_seconds for r in rows)
    lines.append(
        f"{'all':<16}{'':>14}{sum(r.flops for r in rows):>11.3g}{clock(seconds / devices):>12}"
        f"{_bytes(sum(r.disk_bytes for r in rows)):>10}"
    )
    unit = "GPU-hours" if study.resources.train_gpus else "hours of training, one run at a time"
    where = f" on {devices} GPUs a run" if devices > 1 else ""
    lines += ["", f"{seconds / 3600:.3g} {unit}{where}; speed {'; '.join(sorted(sources))}."]
    return "\n".join(lines)


def _measured(layout: Layout, model: str) -> float | None:
    """FLOP/s of one device in a finished run of exactly this configuration, if there is one."""
    content = json.loads(layout.study.content("train", model))
    for seed in layout.study.entry(model).seeds:
        path = layout.run(model, seed) / "run.json"
        if path.is_file() and (run := read_json(path))["config"] == content:
            return float(run["flops_per_second"]) / int(run["processes"])
    return None


def _matrix_rate() -> float:
    """FLOP/s of fp32 matrix products on this machine, timed for a fraction of a second."""
    import torch

    a = torch.randn(1024, 1024)
    a @ a
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.3:
        a @ a
        done += 1
    return done * 2 * 1024**3 / (time.perf_counter() - start)


def _bytes(count: float) -> str:
    """1.5e9 -> '1.5 GB'."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
