"""How fast a run is: images/s, step times, FLOP/s, model FLOP utilisation, peak memory."""

import math
import resource
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from jstar.config import TrainConfig
from jstar.hardware import find_gpu
from jstar.train.parallel import Ranks


@dataclass(frozen=True)
class Speed:
    """How fast a stretch between two records ran, all ranks together."""

    images: int
    seconds: float  # of training since the start of the run, over all its sessions
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


class Speedometer:
    """Times steps without waiting for the device; `rows` are the records so far."""

    def __init__(self, train_flops: float, ranks: Ranks, config: TrainConfig) -> None:
        self.train_flops, self.ranks = train_flops, ranks
        self.peak = ranks.world * (config.peak_flops or _known_peak(ranks.device, config.precision))
        self.seconds = 0.0
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
        )  # fmt: skip
        self.rows.append(row)
        return row

    def facts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "speed": [asdict(row) for row in self.rows]}

    def restore(self, facts: dict[str, Any]) -> None:
        """Undo `facts` (JSON has no NaN: null stands for it)."""
        self.seconds, self.rows = facts["seconds"], []
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


def _known_peak(device: torch.device, precision: str) -> float:
    """Peak FLOP/s of one device, NaN for those not in the table."""
    if device.type == "cuda":
        gpu = find_gpu(torch.cuda.get_device_name(device))
        if gpu is not None:
            return gpu.bf16 if precision == "bf16" else gpu.float32
    return math.nan
