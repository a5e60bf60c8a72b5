"""What a killed process was writing goes when that is written again, and nothing else goes."""

import multiprocessing
import os
import re
import signal
import threading
import time

import pytest
from conftest import ROOT

from jstar.private import write_private
from jstar.records import write_atomically, write_text
from jstar.temporary import temporary

FORK = multiprocessing.get_context("fork")


def hanging(path):
    write_atomically(path, lambda name: name.write_text("half") and time.sleep(100))


def begun(path, count=1):
    """Wait until so many files are being written; their names."""
    deadline = time.monotonic() + 30
    while len(names := [p.name for p in path.parent.glob(".*") if p.stat().st_size]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return names


def write_closed(path, text):
    write_private(path, text.encode())


@pytest.mark.parametrize("write", [write_text, write_closed])
def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path, write):
    path = tmp_path / "a.b.json"
    path.write_text("old")
    killed = FORK.Process(target=hanging, args=(path,))
    killed.start()
    (left,) = begun(path)
    living = FORK.Process(target=hanging, args=(path,))
    living.start()
    begun(path, 2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    alike = [".a.b.json", ".a.12345678.json", ".a.b.12345678.csv", ".a.b.123456789.json"]
    for name in alike:  # another file's, or nobody's
        (tmp_path / name).write_text("kept")
    write(path, "new")
    assert path.read_text() == "new"
    assert not (tmp_path / left).exists()
    assert len(list(tmp_path.glob(".*"))) == len(alike) + 1
    living.kill()
    living.join()
    write(path, "newer")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, *alike])


def test_many_threads_write_one_file_and_none_takes_anothers(tmp_path):
    path, failed = tmp_path / "x.txt", []

    def write(text):
        try:
            for _ in range(100):
                write_text(path, text)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(str(k) * 1000,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({*path.read_text()}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_no_writer_puts_another_file_in_the_place_of_the_locked_one():
    """As safetensors' save_file does, which would also leave files of its own."""
    sources = {path: path.read_text() for path in (ROOT / "src").rglob("*.py")}
    assert len(sources) > 100
    for path, text in sources.items():
        assert not re.search(r"write_atomically\([^\n]*save_file", text), path


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    left = tmp_path / ".x.12345678.txt"
    left.write_text("half")

    def no_locks(*_):
        raise OSError

    monkeypatch.setattr("fcntl.flock", no_locks)
    write_text(tmp_path / "x.txt", "whole")
    assert (tmp_path / "x.txt").read_text() == "whole"
    assert left.exists()


def test_a_file_that_was_not_renamed_is_gone(tmp_path):
    with pytest.raises(ZeroDivisionError), temporary(tmp_path / "x.txt"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
