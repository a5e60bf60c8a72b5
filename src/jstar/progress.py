"""One progress line on stderr: a live line in a terminal, now and then a plain line in a log."""

import sys
import time
from types import TracebackType
from typing import TextIO

PLAIN_SECONDS = 15.0  # between lines where there is no terminal
LIVE_SECONDS = 0.2


class Progress:
    """`with Progress("evaluate d3-s0", 24, "snapshots") as bar: bar.advance()`.

    Prints what, how far, units per second, the caller's note and the time left.
    """

    def __init__(self, what: str, total: float, unit: str, stream: TextIO | None = None) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.done = 0.0
        self.start = self.last = time.monotonic()
        self.first = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._print(end="\n")
        elif self.live:
            self.stream.write("\n")

    def resume(self, done: float) -> None:
        """Count from `done`, without letting it enter the speed."""
        self.done = self.first = done

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Count `amount` more units; prints at most a few times a second (a log: every 15 s)."""
        self.done += amount
        now = time.monotonic()
        if now - self.last >= (LIVE_SECONDS if self.live else PLAIN_SECONDS):
            self.last = now
            self._print(end="" if self.live else "\n", note=note)

    def _print(self, end: str, note: str = "") -> None:
        seconds = max(time.monotonic() - self.start, 1e-9)
        speed = (self.done - self.first) / seconds
        left = (self.total - self.done) / speed if speed > 0 else float("inf")
        share = f"{100 * self.done / self.total:3.0f} %" if self.total else ""
        timing = f"{clock(left)} left" if self.done < self.total else f"took {clock(seconds)}"
        parts = [self.what, share, f"{_short(self.done)}/{_short(self.total)} {self.unit}",
                 f"{_short(speed)} {self.unit}/s", note, timing]  # fmt: skip
        line = "  ".join(part for part in parts if part)
        self.stream.write(f"\r\x1b[K{line}{end}" if self.live else f"{line}{end}")
        self.stream.flush()


def _short(value: float) -> str:
    """1234567 -> 1.23M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if letter == "k" else size
            return f"{value / scale:.3g}{letter}"
    return f"{value:.4g}"


def clock(seconds: float) -> str:
    """75 -> 1:15; 4000 -> 1:06:40; infinity -> ?"""
    if seconds == float("inf"):
        return "?"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
