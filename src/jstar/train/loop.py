"""The train stage: one run, from its last checkpoint to its end or until it is asked to stop."""

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jstar.config import Study
from jstar.errors import JstarError
from jstar.progress import Progress
from jstar.train.chunk import Chunk
from jstar.train.events import Branch
from jstar.train.memory import keep_freed_memory
from jstar.train.optimizer import FEW, IN_A_ROW, learning_rate
from jstar.train.parallel import (
    Ranks,
    deterministic_kernels,
    gradient_sync,
    join_ranks,
    orders_buckets,
)
from jstar.train.publish import publish, require_snapshots, set_aside
from jstar.train.run import Run
from jstar.train.snapshots import cooldown_file
from jstar.train.status import hold_state, write_state
from jstar.train.stop import Stop, listen
from jstar.train.writer import Writer, open_writer

EXIT_CONTINUE = 75  # EX_TEMPFAIL: not finished, start me again
SPIKE = 10  # times the mean gradient norm of the record before: a warning
SAVING_SHARE = 0.01  # of the time, at most, once a checkpoint's own time is known


class BadStepsError(JstarError):
    """Too many steps in a row, or among the last thousand, were not finite."""


class DivergedError(JstarError):
    """A run whose steps are not finite any more."""


@dataclass(frozen=True)
class TrainStatus:
    """How a call of `train` ended. `exit_code` is 0, or 75: start me again to continue."""

    finished: bool
    images: int
    reason: str

    @property
    def exit_code(self) -> int:
        """Exit status for the command line and the workflow."""
        return 0 if self.finished else EXIT_CONTINUE


def train(
    study: Study,
    model: str,
    seed: int,
    data: Path,
    out: Path,
    state: Path,
    *,
    curve: Path | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> TrainStatus:
    """Train the ladder entry `model` with `seed` on the dataset in folder `data`.

    Resumes from the newest intact checkpoint in `state`, exactly. With train.cooldown the run's
    branches follow it, one after the other. A finished run is published to `out`: snapshots/ (with
    the branches' ends), telemetry.csv, speed.csv (with train.noise, which needs J* in the table
    `curve`, also noise_law.csv) and, last, run.json. On SIGTERM, SIGUSR1, SIGINT or when
    train.time_budget_minutes are over it writes a checkpoint and returns `finished=False`. Under
    torchrun all ranks call this.

    After three bad steps in a row, or ten among the last thousand, it goes back to its last
    checkpoint and leaves out the data that led there; run.json says how often and how many.

    Raises JstarError if the state belongs to another configuration or dataset or to a process
    that still runs, if nothing can be written, and where going back did not help three times.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    minutes = study.train.time_budget_minutes
    timeout = study.train.rank_timeout_minutes
    with listen(None if minutes is None else 60 * minutes) as stop, ExitStack() as group:
        ranks = group.enter_context(join_ranks(device, timeout))
        return train_among(
            ranks, stop, study, model, seed, Path(data), Path(out), Path(state), curve=curve,
            leave=group.close,
        )  # fmt: skip


def train_among(
    ranks: Ranks, stop: Stop, study: Study, model: str, seed: int, data: Path, out: Path,
    state: Path, *, curve: Path | None, leave: Callable[[], None] | None = None,
) -> TrainStatus:  # fmt: skip
    """`train` by processes that know each other already, until `stop` has a reason.

    leave: ends their group before the first of them publishes, which may take long; the others then
    need not wait.
    """
    with ExitStack() as stack:
        stack.enter_context(deterministic_kernels(study.train.deterministic))
        if ranks.device.type == "cpu":
            keep_freed_memory()
        if ranks.first:
            stack.enter_context(hold_state(state))
        run = Run(study, model, seed, data, state, ranks, curve)
        stack.enter_context(run.saver)
        if ranks.first:
            set_aside(run)
        ranks.barrier()
        run.restore()
        if ranks.first:
            require_snapshots(run, out)
        status = _go(run, out, stop)
        run.wait_for_saves()
        if not status.finished and ranks.first:
            print(
                f"train: {out.name} stopped ({status.reason}) and saved after {status.images:,} of "
                f"{run.events.total_images:,} images; the same command goes on from there",
                file=sys.stderr,
            )
        if status.finished and run.branch is not None:
            run.enter(None)  # what is published is of the run itself
        if status.finished and leave is not None:
            ranks.barrier()  # no rank may leave while another still reads from it
            leave()
        if status.finished and ranks.first:
            publish(run, out)
        if leave is None or not status.finished:
            ranks.barrier()
        return status


def _go(run: Run, out: Path, stop: Stop) -> TrainStatus:
    """Train the run and then its branches to their ends, or until asked to stop."""
    first, total, todo = run.ranks.first, run.events.total_images, _unfinished(run)
    if todo:
        run.enter(todo[0])
    with ExitStack() as stack:
        silent = stack.enter_context(open(os.devnull, "w"))
        progress = stack.enter_context(
            Progress(f"train {out.name}", total, "images", sys.stderr if first else silent)
        )
        kind = run.config.writer if first else None
        writer = stack.enter_context(open_writer(kind, run.state, run.trained_images))
        progress.resume(run.trained_images if todo else total)
        while todo:
            run.enter(todo[0])
            reason = _train_part(run, stop, progress, Writer() if run.branch else writer)
            if run.branch is not None and run.step == run.end:
                run.write_cooldown(run.branch)
            todo = _unfinished(run)
            if todo and reason is not None:
                return TrainStatus(False, run.trained_images, reason)
    return TrainStatus(True, total, "finished")


def _unfinished(run: Run) -> list[Branch | None]:
    """What is still to be trained: the run itself (None), then those of its branches."""
    if run.branch is None and run.step < run.events.steps:
        return [None, *run.events.branches]
    branches = run.events.branches
    if not branches:
        return []
    done = [run.ranks.first and cooldown_file(run.state, b.index).is_file() for b in branches]
    # One rank looks: a file system may show a new file to some nodes later than to others.
    known = run.ranks.max(torch.tensor(done, dtype=torch.float32).to(run.ranks.device)).tolist()
    return [branch for branch, ended in zip(branches, known, strict=True) if not ended]


def _train_part(run: Run, stop: Stop, progress: Progress, writer: Writer) -> str | None:
    """Train the run or a branch to its end, or until asked to stop: returns why, if so."""
    events, branch = run.events, run.branch
    saved_at, saved_images, stalled = time.monotonic(), run.images, 0.0
    reason = None
    while run.step < run.end and reason is None:
        before, began = run.images, time.monotonic()
        try:
            loss = run_chunk(run, events.border(run.step))
        except BadStepsError as error:
            _roll_back(run, error)
            saved_images = run.images
            progress.resume(run.trained_images)
            continue
        if run.step in events.records:
            _record(run, loss, writer)
        if branch is None:
            _mark(run)
        progress.advance(run.images - before, f"loss {loss:.4f}")
        run.saver.check()
        # One may be half written when the signal comes, its own comes after it, and a chunk before.
        stop.saving = 2 * run.save_seconds + time.monotonic() - began
        pause = max(run.config.checkpoint_seconds, stalled * (1 / SAVING_SHARE - 1))
        late = time.monotonic() - saved_at >= pause
        due = (
            run.config.checkpoint_images is not None
            and run.images - saved_images >= run.config.checkpoint_images
        )
        # Ranks must agree, or one waits for ever. The first one says when it is late.
        wish = [late and run.ranks.first, due, stop.reason is not None, run.saver.busy]
        wishes = run.ranks.max(torch.tensor(wish, dtype=torch.float32).to(run.ranks.device))
        late_any, due_any, stop_any, busy_any = wishes.tolist()
        if not busy_any:
            run.mark_saved()
            due_any = due_any or late_any
        if due_any or stop_any or (branch is None and run.step == run.end):
            begun = time.monotonic()
            run.save()
            saved_at, saved_images = time.monotonic(), run.images
            stalled = saved_at - begun
        if stop_any:
            reason = stop.reason or "another rank was stopped"
    return reason


def _roll_back(run: Run, error: BadStepsError) -> None:
    """Go on from the last checkpoint with other data. Raises DivergedError where that is over."""
    at = run.images
    try:
        left_out = run.roll_back()
    except JstarError as over:
        raise DivergedError(
            f"{run.state}: {error}; {over}; the last good checkpoint is kept, lower "
            f"train.learning_rate = {run.config.learning_rate:g} and start anew"
        ) from None
    if run.ranks.first:
        print(
            f"train: {error} at image {at}; back to image {run.images}, the data of {left_out} "
            "steps are left out", file=sys.stderr,
        )  # fmt: skip


def _mark(run: Run) -> None:
    """What a run writes at this step besides its checkpoints, and before them."""
    if run.step in run.events.snapshots:
        run.write_snapshot(run.events.snapshots.index(run.step))
    for branch in run.events.branches:
        if branch.start == run.step:
            run.fork(branch)


def run_chunk(run: Run, border: int) -> float:
    """The steps up to `border`; returns their mean loss. The device is waited for at the end."""
    run.speed.start()
    before, leap = run.optimizer.health[0].clone(), run.leap
    chunk = run.stream.chunk(run.step + leap, border + leap, run.events.border(border) + leap)
    error_KB = torch.empty_like(chunk.weight)
    if orders_buckets(run.objective) and not run.settled:
        # By its first pass DDP orders its buckets, and these the sums of three ranks or more: that
        # of a resumed run would add its first gradients in another order.
        _gradient(run, chunk, 0, error_KB[0])
        run.optimizer.clear()
        run.settled = True
    for k in range(len(error_KB)):
        _gradient(run, chunk, k, error_KB[k])
        run.step += 1
        rate = learning_rate(run.config, run.shape.width, run.images, run.branch)
        run.optimizer.step(rate)
        run.ema.update(run.step)
        run.speed.step()
    run.bins.add(chunk, error_KB)
    run.noise_law.follow(chunk, error_KB, run.images, run.ranks)
    mean = (chunk.weight * error_KB).mean()
    health = run.optimizer.health
    loss, skipped, row, recent = torch.stack(
        [mean, health[0] - before, health[2], health[3]]
    ).tolist()
    run.speed.stop()
    if row >= IN_A_ROW or recent > FEW:
        raise BadStepsError(
            f"{max(row, skipped):.0f} steps had a loss or gradient that is not finite"
        )
    if skipped and run.ranks.first:
        print(
            f"train: skipped a step before image {run.images}, its loss or gradient is not finite",
            file=sys.stderr,
        )
    return float(loss)


def _gradient(run: Run, chunk: Chunk, k: int, error_B: Tensor) -> None:
    """Gradients of step k into `.grad`, its squared errors into `error_B`; in microbatches."""
    size = len(error_B)
    part = run.cut.microbatch
    for start in range(0, size, part):
        rows = slice(start, min(start + part, size))
        with gradient_sync(run.objective, rows.stop == size):
            with run.autocast:
                loss, error_B[rows] = run.objective(
                    chunk.x_in[k, rows],
                    chunk.c_noise[k, rows],
                    None if chunk.labels is None else chunk.labels[k, rows],
                    chunk.target[k, rows],
                    chunk.weight[k, rows],
                )
            share = (rows.stop - rows.start) / size
            (loss if share == 1 else loss * share).backward()


def _record(run: Run, loss: float, writer: Writer) -> None:
    """Telemetry of the stretch since the last record."""
    run.bins.record(run.images, run.ranks.sum(run.bins.sums))
    run.noise_law.record(run.images)
    last = run.speed.rows[-1].gradient_norm if run.speed.rows else math.nan
    norms, skipped = run.optimizer.take_norms(), int(run.optimizer.health[0])
    speed = run.speed.record(run.images, norms, skipped)
    if run.ranks.first and norms[1] > SPIKE * last:
        print(
            f"train: the gradient norm rose to {norms[1]:.3g} before image {run.images}, "
            f"{norms[1] / last:.0f} times its mean before", file=sys.stderr,
        )  # fmt: skip
    if run.ranks.first:
        write_state(run, loss)
        writer.write(run.images, loss, speed, run.bins.latest())
