"""Rehearse a study on this machine: processes with a time limit, one of them killed on purpose."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from jstar.config import Study
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.model import model_config, parameters
from jstar.records import read_json
from jstar.rehearse.compare import (
    LOSS,
    Row,
    evaluate_row,
    loss_rows,
    resume_row,
    train_rows,
)
from jstar.rehearse.images import random_images
from jstar.rehearse.orders import (
    EvaluateReport,
    GoldenReport,
    Orders,
    ResumeReport,
    TrainReport,
)
from jstar.rehearse.planned import planned_of, work_of_network
from jstar.rehearsed import Rehearsal, write_rehearsal

PART_SHARE = 0.03  # of a size's time: one of its timed stretches
GOLDEN_SHARE = 0.3
GOLDEN_START = 5.0  # seconds until its process has torch
LEAST_SHARE = 1 / 3  # of the largest size's time
SCRATCH = ".scratch-"
TORCHRUN = (  # which ends when this process is killed, and its workers with it
    "from jstar.pool import end_with_parent; end_with_parent(); "
    "from torch.distributed.run import main; main()"
)
POLL = 0.02  # seconds
NO_GPU = (
    "the study trains on GPUs and was rehearsed on a CPU: speed and evaluation are not compared, "
    "the plan has none for it, and jstar plan does not read the numbers"
)
LAUNCHER = "torch/distributed/elastic/"  # in each line of torchrun's log
LAST_WORDS = 300  # characters of what a failed process said


@dataclass(frozen=True)
class SizeReports:
    """What the processes of one size told; None for what did not fit or failed."""

    train: TrainReport | None = None
    resume: ResumeReport | None = None
    evaluate: EvaluateReport | None = None
    golden: GoldenReport | None = None
    late: tuple[str, ...] = ()  # phases that did not fit into the time
    failed: tuple[str, ...] = ()  # sentences


@dataclass(frozen=True)
class Rehearsed:
    """The whole rehearsal."""

    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    faults: tuple[str, ...]
    late: tuple[str, ...]
    written: tuple[Path, ...]


@dataclass(frozen=True)
class Node:
    """This machine: how many processes train a run, on which device (None: the best there is)."""

    processes: int
    device: str | None
    threads: int | None


Measure = Callable[[Orders, Node, float], SizeReports]


def measure_size(orders: Orders, node: Node, seconds: float) -> SizeReports:
    """Run all phases of a size, in at most so many seconds."""
    end = time.monotonic() + seconds
    reports, late, failed = {}, [], []
    phases: tuple[tuple[str, type[Any]], ...] = (
        ("train", TrainReport), ("resume", ResumeReport), ("evaluate", EvaluateReport),
        ("golden", GoldenReport),
    )  # fmt: skip
    path = orders.write()
    for phase, kind in phases:
        if phase != "train" and "train" not in reports:
            break
        if phase == "golden":  # the last one, and what it does depends on the time
            left = max(0.0, end - time.monotonic() - GOLDEN_START)
            replace(orders, golden_seconds=min(orders.golden_seconds, left)).write()
        try:
            done = _run_phase(phase, path, node, orders.file(f"{phase}.json"), end)
        except JstarError as error:
            failed.append(str(error))
            continue
        if done:
            reports[phase] = kind(**read_json(orders.file(f"{phase}.json")))
        else:
            late.append(phase)
    return SizeReports(**reports, late=tuple(late), failed=tuple(failed))


def _run_phase(phase: str, orders: Path, node: Node, report: Path, end: float) -> bool:
    """Whether the phase wrote its report in time. The process that trains is killed once it has.

    Raises JstarError where the process fails.
    """
    report.unlink(missing_ok=True)
    several = phase in ("train", "resume") and node.processes > 1
    launcher = ["-c", TORCHRUN, "--standalone", f"--nproc-per-node={node.processes}"]
    command = [sys.executable, *(launcher if several else []), "-m", "jstar.rehearse.worker"]
    if phase == "golden":
        environment = {**os.environ, "JSTAR_NATIVE": "0", "CUDA_VISIBLE_DEVICES": ""}
    else:
        cache = str(orders.parent / "compiled")  # cold, so that compiling is measured
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
    log = orders.parent / f"{phase}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, phase, str(orders)], stdout=output, stderr=output, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        while time.monotonic() < end:
            if phase == "train" and report.is_file():
                return True  # SIGKILL below, while it trains on
            if process.poll() is not None:
                break
            time.sleep(POLL)
        else:
            return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # torchrun's workers end with their parent
        process.wait()
    if process.returncode or not report.is_file():
        words = _last_words(log.read_text(errors="replace"))
        raise JstarError(f"{phase} ended with status {process.returncode} ({words})")
    return True


def _last_words(log: str) -> str:
    """The end of what a process said; of several what the first to fail said, not torchrun."""
    lines = log.splitlines()
    own = list(takewhile(lambda line: LAUNCHER not in line, lines))
    return " ".join(" ".join(own or lines).split())[-LAST_WORDS:]


def rehearse(
    layout: Layout,
    node: Node,
    seconds: float,
    models: list[str],
    *,
    measure: Measure | None = None,
) -> Rehearsed:
    """Rehearse sizes, the largest first, each in a share of the seconds that are left.

    Measured numbers are written where `jstar plan` reads them. Raises JstarError where neither the
    data are prepared nor their shape is known. measure: what runs a size; `measure_size`.
    """
    end, layout = time.monotonic() + seconds, layout.tuned()
    study, notes = here(layout.study, node)
    waiting = by_size(study, models)
    rows, faults, late, written = [], [], [], []
    with _scratch(layout) as scratch:
        data = layout.data
        if not (data / "card.json").is_file():
            data = scratch / "data"
            count = random_images(study.dataset, data, labelled=study.conditional)
            notes.append(
                f"dataset '{study.dataset.name}' is not prepared: {count:,} random images of its "
                "shape stand for it, none of them kept on GPUs"
            )
            if study.train.resident == "auto":
                plain = study.train.model_copy(update={"resident": False})
                study = study.model_copy(update={"train": plain})
        for k, (model, weight) in enumerate(waiting):
            left = end - time.monotonic()
            share = left * weight / sum(w for _, w in waiting[k:])
            if left <= 0:
                late.append(f"{model}: no time was left")
                continue
            orders = Orders(
                study.model_dump_json(), model, study.entry(model).seeds[0], str(data),
                str(layout.curve) if layout.curve.is_file() else None,
                str(scratch / model), node.device, node.threads, PART_SHARE * share,
                GOLDEN_SHARE * share,
            )  # fmt: skip
            orders.file("").mkdir()
            found = (measure or measure_size)(orders, node, share)
            shutil.rmtree(orders.folder, ignore_errors=True)
            late += [f"{model}: {what} did not fit into {share:.0f} s" for what in found.late]
            faults += [f"{model}: {sentence}" for sentence in found.failed]
            if found.train is None:
                continue
            if study.resources.train_gpus and found.train.device == "cpu" and NO_GPU not in notes:
                notes.append(NO_GPU)
            mine = list(_rows(study, model, found, found.train))
            rows += mine
            faults += [row.fault for row in mine if row.fault]
            written.append(_write(layout, model, found, found.train, data))
    if not rows and not faults:
        faults.append("no size could be measured in this time; give --minutes more, or one --model")
    return Rehearsed(tuple(notes), tuple(rows), tuple(faults), tuple(late), tuple(written))


def here(study: Study, node: Node) -> tuple[Study, list[str]]:
    """The study with the batch that the processes at hand train, each its planned share of it."""
    resources, notes = study.resources, list[str]()
    if node.processes == resources.processes:
        return study, notes
    ladder = []
    for entry in study.ladder:
        share = max(1, study.train_of(entry.name).batch // resources.processes)
        ladder.append(entry.model_copy(update={"batch": share * node.processes}))
    few = node.processes < resources.processes
    between = "what travels between the others is not measured, " if few else ""
    notes.append(
        f"{node.processes} processes are here, a run of the study has {resources.processes}: each "
        f"trains its share of a batch, {between}and jstar plan does not read the numbers"
    )
    return study.model_copy(update={"ladder": ladder}), notes


def by_size(study: Study, models: list[str]) -> list[tuple[str, float]]:
    """The sizes, the largest first, with what their share of the time is in proportion to."""
    sizes = {}
    for model in models:
        shape = model_config(study.model, study.entry(model), (1, 64, 64), 0)
        sizes[model] = float(parameters(shape)) ** 0.5
    least = LEAST_SHARE * max(sizes.values())  # every process of a small one has to start, too
    order = sorted(sizes, key=lambda model: -sizes[model])
    return [(model, max(least, sizes[model])) for model in order]


@contextmanager
def _scratch(layout: Layout) -> Iterator[Path]:
    """A folder on the disk of the results, gone afterwards; what killed rehearsals left goes first.

    Each is locked by its process while that lives; on a file system without locks they stay.
    """
    home = layout.rehearsals
    with ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home, wait=True):  # nobody else looks before the new one is locked
                for left in home.glob(f"{SCRATCH}*"):
                    with _locked(left) as free:
                        if free:
                            shutil.rmtree(left, ignore_errors=True)
                folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=home))
                stack.enter_context(_locked(folder))
        except OSError as error:
            raise JstarError(f"{home}: cannot be written ({error.strerror})") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder until the block or this process ends; whether that was possible."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(handle)


def _rows(study: Study, model: str, found: SizeReports, train: TrainReport) -> Iterator[Row]:
    planned, config = planned_of(study, model, train), study.train_of(model)
    yield from train_rows(model, planned, train)
    if found.resume is not None:
        claimed = train.device == "cpu" or config.deterministic
        yield resume_row(
            model, found.resume, train, claimed=claimed, allowed=LOSS[config.precision]
        )
    if found.evaluate is not None:
        yield evaluate_row(model, train.device, planned, _network_seconds(study, model, found))
    if found.golden is not None:
        yield from loss_rows(model, config.precision, found.golden, train.gradient_norm)


def _network_seconds(study: Study, model: str, found: SizeReports) -> float:
    assert found.evaluate is not None
    return found.evaluate.seconds * work_of_network(study, model)


def _write(
    layout: Layout, model: str, found: SizeReports, train: TrainReport, data: Path
) -> Path:  # fmt: skip
    seconds = None if found.evaluate is None else _network_seconds(layout.study, model, found)
    measured = Rehearsal(
        train.kind, train.world, train.threads, train.images_per_second, train.memory,
        train.compile_seconds, train.save_seconds, train.save_bytes, train.snapshot_seconds,
        train.snapshot_bytes, seconds,
    )  # fmt: skip
    images = "prepared" if data == layout.data else "random"
    return write_rehearsal(layout, model, measured, images=images, cut=train.cut)
