"""The progress line: plain in a log, live in a terminal, resumed runs not counted twice."""

import io

import pytest

from jstar.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_last_line_with_speed_and_time():
    stream = io.StringIO()
    with Progress("train d1-s0", 1000, "images", stream) as bar:
        for _ in range(10):
            bar.advance(100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    for word in ("train d1-s0", "100 %", "1000/1000 images", "images/s", "took 0:0"):
        assert word in lines[0]


def test_a_terminal_line_is_overwritten(monkeypatch):
    monkeypatch.setattr("jstar.progress.LIVE_SECONDS", 0.0)
    stream = Terminal()
    with Progress("x", 2, "steps", stream) as bar:
        bar.advance(note="loss 0.5")
        bar.advance()
    assert stream.getvalue().count("\r") == 3
    assert "loss 0.5" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_what_was_done_before_is_not_speed(monkeypatch):
    moments = iter([0.0, 100.0, 100.0, 100.0])
    monkeypatch.setattr("jstar.progress.time.monotonic", lambda: next(moments))
    stream = io.StringIO()
    bar = Progress("x", 1000, "images", stream)
    bar.resume(900)
    bar.advance(50)
    assert "0.5 images/s" in stream.getvalue()
    assert "1:40 left" in stream.getvalue()


def test_an_error_writes_no_false_end():
    stream = io.StringIO()
    with pytest.raises(ValueError), Progress("x", 10, "steps", stream):  # noqa: PT011
        raise ValueError
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "0:05"), (75, "1:15"), (4000, "1:06:40"), (float("inf"), "?")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
