"""Being asked to stop: by a signal, or because the time is up."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stop:
    """`reason` is None until the run should write a checkpoint and leave."""

    def __init__(self, budget_seconds: float | None = None) -> None:
        self.deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
        self.signal: str | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop, if so."""
        if self.signal is not None:
            return self.signal
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "time budget"
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
