"""One progress line on stderr: a live line in a terminal, now and then a plain line in a log."""

import sys
import time
from types import TracebackType
from typing import TextIO

PLAIN_SECONDS = 15.0  # between lines where there is no terminal
LIVE_SECONDS = 0.2


class Line:
    """A line on stderr that a terminal overwrites; a log gets a plain one now and then."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self.last >= (LIVE_SECONDS if self.live else PLAIN_SECONDS)

    def show(self, text: str) -> None:
        """Write the text, in a terminal in place of the last."""
        self.last = time.monotonic()
        self._write(text, "" if self.live else "\n")

    def end(self, text: str) -> None:
        """Write the last text and leave the line."""
        self._write(text, "\n")

    def _write(self, text: str, end: str) -> None:
        self.stream.write(f"\r\x1b[K{text}{end}" if self.live else f"{text}{end}")
        self.stream.flush()


class Progress:
    """`with Progress("evaluate d3-s0", 24, "snapshots") as bar: bar.advance()`.

    Prints what, how far, units per second, the caller's note and the time left.
    """

    def __init__(self, what: str, total: float, unit: str, stream: TextIO | None = None) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.line = Line(stream)
        self.done = self.first = 0.0
        self.start = self.line.last

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.line.end(self._text())
        elif self.line.live:
            self.line.stream.write("\n")

    def resume(self, done: float) -> None:
        """Count from `done`, without letting it enter the speed."""
        self.done = self.first = done

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Count `amount` more units; prints at most a few times a second (a log: every 15 s)."""
        self.done += amount
        if self.line.due():
            self.line.show(self._text(note))

    def _text(self, note: str = "") -> str:
        seconds = max(time.monotonic() - self.start, 1e-9)
        speed = (self.done - self.first) / seconds
        left = (self.total - self.done) / speed if speed > 0 else float("inf")
        share = f"{100 * self.done / self.total:3.0f} %" if self.total else ""
        timing = f"{clock(left)} left" if self.done < self.total else f"took {clock(seconds)}"
        parts = [self.what, share, f"{short(self.done)}/{short(self.total)} {self.unit}",
                 f"{short(speed)} {self.unit}/s", note, timing]  # fmt: skip
        return "  ".join(part for part in parts if part)


def short(value: float) -> str:
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
