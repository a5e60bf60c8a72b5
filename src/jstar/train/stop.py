"""Being asked to stop: by a signal, or because the time is up."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SLACK = 20.0  # seconds: to notice, to leave the group of processes and to end
LIMIT = "SLURM_JOB_END_TIME"  # set by SLURM 22.05 and later: seconds since 1970
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stop:
    """`reason` is None until the run should write a checkpoint and leave.

    `saving`: seconds from there to its end. A job whose time limit is known leaves so much before.
    """

    def __init__(self, budget_seconds: float | None = None) -> None:
        self.deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
        self.signal: str | None = None
        self.saving = 0.0
        limit = os.environ.get(LIMIT, "")
        self.limit = time.monotonic() + int(limit) - time.time() if limit.isdecimal() else None

    @property
    def reason(self) -> str | None:
        """Why to stop, if so."""
        if self.signal is not None:
            return self.signal
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "time budget"
        if self.limit is not None and time.monotonic() >= self.limit - SLACK - self.saving:
            return "time limit of the job"
        return None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name


@contextmanager
def listen(budget_seconds: float | None = None) -> Iterator[Stop]:
    """Turn SIGTERM, SIGUSR1 and SIGINT into a request to stop, until the block ends.

    Only the main thread can listen; elsewhere only the time budget counts.
    """
    stop = Stop(budget_seconds)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._on_signal) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
