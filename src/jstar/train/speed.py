"""How fast a run is (images/s, step times, MFU, memory), and where its wall-clock time goes."""

import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from jstar.config import TrainConfig
from jstar.hardware import find_gpu
from jstar.train.parallel import Ranks

WALL_CLOCK = ("training", "saving", "compiling", "waiting")
COMPILER = ("entire_frame_compile", "entire_backward_compile")  # of torch._dynamo.utils


@dataclass(frozen=True)
class Speed:
    """How fast a stretch between two records ran, all ranks together."""

    images: int
    seconds: float  # of steps since the start of the run, over all its sessions
    images_per_second: float
    step_p50: float  # seconds
    step_p95: float
    flops_per_second: float
    peak_flops: float  # of all devices, NaN where unknown
    mfu: float  # flops_per_second / peak_flops
    peak_memory: int  # bytes, of the fullest rank
    gradient_norm: float = math.nan  # mean before clipping
    gradient_norm_max: float = math.nan
    skipped_steps: int = 0  # since the start of the run: their gradient was not finite
    # Wall-clock seconds of the first rank that were no training, since the start of the run.
    saving: float = 0.0  # training stood still for a checkpoint or snapshot
    compiling: float = 0.0  # in the compiler, within `seconds`
    waiting: float = 0.0  # all the rest: start, restoring, other ranks

    @property
    def wall_clock(self) -> dict[str, float]:
        """Seconds of the wall-clock time so far, by what they went into."""
        parts = self.seconds - self.compiling, self.saving, self.compiling, self.waiting
        return dict(zip(WALL_CLOCK, parts, strict=True))


class Speedometer:
    """Times steps without waiting for the device; `rows` are the records so far."""

    def __init__(self, train_flops: float, ranks: Ranks, config: TrainConfig) -> None:
        self.train_flops, self.ranks = train_flops, ranks
        self.peak = ranks.world * (config.peak_flops or _known_peak(ranks.device, config.precision))
        self.seconds = self.saved = self.wall = 0.0  # wall: of earlier sessions
        self.compiled = -_compiler_seconds()
        self.session = time.perf_counter()
        self.rows: list[Speed] = []
        self._steps: list[float] = []  # seconds
        self._marks: list[Any] = []

    def start(self) -> None:
        """A stretch of steps begins."""
        self._begun = time.perf_counter()
        self._marks = [self._mark()]

    def step(self) -> None:
        """A step has been issued."""
        self._marks.append(self._mark())

    def stop(self) -> None:
        """The device has done all steps of the stretch (the caller has just read from it)."""
        self.seconds += time.perf_counter() - self._begun
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self.ranks.device.type == "cuda":
            self._steps += [a.elapsed_time(b) / 1e3 for a, b in pairs]
        else:
            self._steps += [b - a for a, b in pairs]
        self._marks = []

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Training stands still for a save."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.saved += time.perf_counter() - begun

    def begin_session(self) -> None:
        """What follows is `restore`, of a run that goes on elsewhere: time counts from here."""
        self.session = time.perf_counter()
        self.compiled = -_compiler_seconds()

    def _wall(self) -> tuple[float, float, float]:
        """Seconds of saving and compiling, and the rest that is no step, over all sessions."""
        compiled = self.compiled + _compiler_seconds()
        wall = self.wall + time.perf_counter() - self.session
        return self.saved, compiled, max(0.0, wall - self.seconds - self.saved)

    def record(
        self, images: int, norms: tuple[float, float] = (math.nan, math.nan), skipped: int = 0
    ) -> Speed:
        """Close the stretch since the last record. All ranks must call it.

        norms: mean and maximum gradient norm; skipped: steps so far that were not finite.
        """
        before = self.rows[-1] if self.rows else None
        seconds = self.seconds - (before.seconds if before else 0.0)
        speed = (images - (before.images if before else 0)) / max(seconds, 1e-9)
        p50, p95 = np.percentile(self._steps, [50, 95]) if self._steps else (math.nan, math.nan)
        self._steps = []
        row = Speed(
            images, self.seconds, speed, float(p50), float(p95), speed * self.train_flops,
            self.peak, speed * self.train_flops / self.peak, self._peak_memory(), *norms, skipped,
            *self._wall(),
        )  # fmt: skip
        self.rows.append(row)
        return row

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        saving, compiling, waiting = self._wall()
        return {
            "seconds": self.seconds, "saving": saving, "compiling": compiling,
            "waiting": waiting, "speed": [asdict(row) for row in self.rows],
        }  # fmt: skip

    def restore(self, facts: dict[str, Any]) -> None:
        """Undo `facts` (JSON has no NaN: null stands for it). What came after them is lost."""
        self.seconds, self.rows = facts["seconds"], []
        self.saved = facts.get("saving", 0.0)
        self.compiled = facts.get("compiling", 0.0) - _compiler_seconds()
        self.wall = self.seconds + self.saved + facts.get("waiting", 0.0)
        for row in facts["speed"]:
            values: dict[str, Any] = {k: math.nan if v is None else v for k, v in row.items()}
            self.rows.append(Speed(**values))

    def _mark(self) -> Any:
        if self.ranks.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _peak_memory(self) -> int:
        device = self.ranks.device
        if device.type == "cuda":
            used = torch.cuda.max_memory_allocated(device)
        else:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return int(self.ranks.max(torch.tensor(float(used), dtype=torch.float64).to(device)))


def _compiler_seconds() -> float:
    """Seconds that torch.compile took in this process so far; 0 where it was not called."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return 0.0
    spent = dynamo.cumulative_time_spent_ns
    return float(sum(spent[name] for name in COMPILER if name in spent)) / 1e9


def _known_peak(device: torch.device, precision: str) -> float:
    """Peak FLOP/s of one device, NaN for those not in the table."""
    if device.type == "cuda":
        gpu = find_gpu(torch.cuda.get_device_name(device))
        if gpu is not None:
            return gpu.bf16 if precision == "bf16" else gpu.float32
    return math.nan
