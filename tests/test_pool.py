"""Work in many processes: in its order, and one sentence where one of them is killed."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ROOT

from jstar import pool
from jstar.errors import JstarError
from jstar.records import write_atomically


def square(x, killed=-1, number=signal.SIGKILL):
    if x == killed:
        os.kill(os.getpid(), number)
    return x * x


def test_results_come_in_the_order_of_the_tasks(monkeypatch):
    for workers in (1, 3):
        monkeypatch.setattr(pool, "cpu_count", lambda workers=workers: workers)
        tasks = [(x,) for x in range(20)]
        assert pool.in_processes(square, tasks, "square", "numbers") == [x * x for x in range(20)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_one_sentence(number, monkeypatch):
    monkeypatch.setattr(pool, "cpu_count", lambda: 2)
    with pytest.raises(JstarError, match="square: one of 2 processes was killed, .* memory"):
        pool.in_processes(square, [(x, 7, number) for x in range(20)], "square", "numbers")


def write_or_die(path):
    if path is None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)

    def half(temporary):
        temporary.write_text("half")
        time.sleep(30)

    write_atomically(path, half)


def test_where_one_is_killed_the_others_leave_nothing_half_written(monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "cpu_count", lambda: 2)
    with pytest.raises(JstarError, match="one of 2 processes was killed"):
        pool.in_processes(write_or_die, [(tmp_path / "a.txt",), (None,)], "write", "files")
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_told_to_leave_in_a_destructor_leaves_without_a_word():
    """Python prints and ignores what is raised there: the process went on, a traceback was seen."""
    code = """
import signal, time, weakref
from jstar.pool import _leave
class A: pass
a = A()
told = weakref.ref(a, lambda _: signal.raise_signal(signal.SIGTERM))
signal.signal(signal.SIGTERM, _leave)
del a
time.sleep(100)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGALRM, "")


def test_figures_of_which_one_is_killed_leave_whole_files_and_exit_status_2(tmp_path):
    code = """
import os, signal, sys
from jstar import pool
from jstar.figures import stage
pool.cpu_count = lambda: 2
draw = stage.draw_figure
def killed(name, *rest):
    if name == "gap":
        os.kill(os.getpid(), signal.SIGKILL)
    draw(name, *rest)
stage.draw_figure = killed
from jstar.cli import main
sys.argv = ["jstar", "figures", *sys.argv[1:]]
main()
"""
    reference, fits = ROOT / "results" / "reference" / "digits", tmp_path / "fits"
    curve, out = reference / "curve.csv", tmp_path / "figures"
    losses = pd.read_csv(reference / "losses.csv")
    losses[losses["sigma"].isin(losses["sigma"].unique()[-2:])].to_csv(tmp_path / "losses.csv")
    subprocess.run(
        [sys.executable, "-m", "jstar", "fit", "--losses", tmp_path / "losses.csv", "--optimal",
         curve, "--min-images", "32000", "--bootstrap", "100", "--out", fits],
        check=True, capture_output=True,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, "--fits", fits, "--optimal", curve, "--out", out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "draw: one of 2 processes was killed" in done.stderr
    assert "Traceback" not in done.stderr
    for path in out.iterdir():
        begins = {".pdf": b"%PDF", ".png": b"\x89PNG", ".json": b"{"}[path.suffix]
        assert path.read_bytes().startswith(begins)
