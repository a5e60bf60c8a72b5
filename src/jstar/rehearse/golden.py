"""The same first steps in float32 on a CPU, by torch's own operations: what a device must match.

Zero layers of a new network hide whatever its blocks compute, so the weights are opened first, in
the run and here alike.
"""

import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jstar.config import Study
from jstar.model import DiT, flops
from jstar.rehearse.orders import OPENING, GoldenReport, Orders, TrainReport
from jstar.train.chunk import Chunk
from jstar.train.footprint import Load
from jstar.train.loop import run_chunk
from jstar.train.objective import Objective
from jstar.train.parallel import ALONE, fill, local
from jstar.train.run import Run
from jstar.train.stream import Stream

WIDTH = 0.02  # standard deviation of what the zero weights become
ERRORS = "errors"
FEWEST, GROUP = 1, 16  # images of one pass: the first, and the others at most


def inputs_file(rank: int) -> str:
    """Of one process' share of the opening steps."""
    return f"inputs-{rank}.safetensors"


@torch.no_grad()
def open_weights(run: Run) -> None:
    """Give every parameter that is all zero small random values: the same for any device."""
    generator = torch.Generator().manual_seed(run.seed + 1)
    for parameter in run.named.values():
        part = local(parameter)
        if float(run.ranks.sum(part.detach().abs().double().sum())) == 0.0:
            values = torch.empty(parameter.shape).normal_(std=WIDTH, generator=generator)
            fill(part.detach(), values, parameter)


def keep_inputs(path: Path, chunks: list[Chunk], errors_B: Tensor) -> None:
    """Write one process' share of the opening steps, and its squared errors of the first."""
    named = {ERRORS: errors_B.detach().float().cpu().contiguous()}
    for k, chunk in enumerate(chunks):
        for name, value in vars(chunk).items():
            if value is not None:
                named[f"{k}/{name}"] = value.detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(named, path)


def golden(orders: Orders, report: TrainReport) -> GoldenReport:
    """The opening steps of all processes where there is time, else the loss of a few images."""
    study, end = orders.checked, time.perf_counter() + orders.golden_seconds
    load, _ = report.load(study, orders.model)
    step = 3.0 * flops(load.shape) * load.share * report.world
    if OPENING * step <= orders.golden_seconds * _rate():
        shares = [load_file(orders.file(inputs_file(rank))) for rank in range(report.world)]
        return _whole(orders, study, shares, report)
    return _part(orders, load, report, end)


def _whole(
    orders: Orders, study: Study, shares: list[dict[str, Tensor]], report: TrainReport
) -> GoldenReport:  # fmt: skip
    entry = study.entry(orders.model)
    plain = study.train.model_copy(update={"precision": "fp32", "compile": False})
    study = study.model_copy(update={"train": plain})
    curve = None if orders.curve is None else Path(orders.curve)
    run = Run(
        study, entry.name, orders.seed, Path(orders.data), orders.file("golden"), ALONE, curve
    )
    with run.saver:
        open_weights(run)
        run.stream = _Replay([_joined(shares, k) for k in range(OPENING)])
        losses, norm = [], 0.0
        for k in range(OPENING):
            losses.append(run_chunk(run, k + 1))
            norm = norm or run.optimizer.take_norms()[1]
    measured = [float("nan") if loss is None else loss for loss in report.losses[:OPENING]]
    return GoldenReport(run.config.batch, True, losses, norm, measured)


def _part(orders: Orders, load: Load, report: TrainReport, end: float) -> GoldenReport:
    """The loss of the first process' first images of the first step, forward only, until `end`."""
    share = load_file(orders.file(inputs_file(0)))
    objective = opened_objective(load, orders.seed)
    chunk, errors = _joined([share], 0), list[Tensor]()
    weight_B, done, group = chunk.weight[0], 0, FEWEST
    with torch.inference_mode():
        while done < len(weight_B) and group > 0:
            begun, seen = time.perf_counter(), slice(done, done + group)
            labels = None if chunk.labels is None else chunk.labels[0, seen]
            _, error_B = objective(
                chunk.x_in[0, seen], chunk.c_noise[0, seen], labels, chunk.target[0, seen],
                weight_B[seen],
            )  # fmt: skip
            errors.append(error_B)
            done += len(error_B)
            now = time.perf_counter()
            group = min(GROUP, int((end - now) * len(error_B) / (now - begun)))
    losses = [
        float((weight_B[:done] * of_B[:done]).mean()) for of_B in (torch.cat(errors), share[ERRORS])
    ]
    return GoldenReport(done, False, losses[:1], None, losses[1:])


@torch.no_grad()
def opened_objective(load: Load, seed: int) -> Objective:
    """That of a new run after `open_weights`, to the bit, without the rest of a run."""
    network = DiT.drawn(load.shape, seed)
    objective = Objective(network, load.config.make_process().learned_weight)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in objective.parameters():
        if not parameter.view(-1)[0] and not parameter.any():  # the first alone says it of most
            parameter.normal_(std=WIDTH, generator=generator)
    return objective


class _Replay(Stream):
    """Gives the chunks that a run on another device was given."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self._chunks: Iterator[Chunk] = iter(chunks)

    def chunk(self, start: int, stop: int, then: int | None = None) -> Chunk:
        """The next one."""
        return next(self._chunks)


def _joined(shares: list[dict[str, Tensor]], step: int) -> Chunk:
    """What all processes trained on in a step: [1, B, …]."""
    found = {}
    for field in fields(Chunk):
        parts = [share[key] for share in shares if (key := f"{step}/{field.name}") in share]
        found[field.name] = torch.cat(parts, dim=1) if parts else None
    return Chunk(**found)  # type: ignore[arg-type]


def _rate() -> float:
    """FLOP/s of matrix products on all threads, timed for a fraction of a second."""
    a = torch.randn(1024, 1024)
    a @ a
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.2:
        a @ a
        done += 1
    return done * 2 * 1024**3 / (time.perf_counter() - start)
