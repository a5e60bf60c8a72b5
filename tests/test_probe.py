"""Answers that are measured once a machine: kept, shared, and never damaged."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from jstar import probe


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own, measurements that end after three rounds, and an idle machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    monkeypatch.setattr(probe, "LONGEST", 0.0)
    monkeypatch.setattr(probe.os, "getloadavg", lambda: (0, 0, 0))


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "kernel.c"
    path.write_text("1")
    return [path]


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def ways(slow, quick=0.002):
    return lambda: (("slow", lambda: busy(slow)), ("quick", lambda: busy(quick)))


def never():
    raise AssertionError("measured again")


def test_the_faster_way_is_found_and_asked_for_once(code, monkeypatch):
    monkeypatch.setattr(probe.torch, "get_num_threads", lambda: 1)
    answer = probe.measured("q", ways(0.01), code)
    assert answer.faster == "quick"
    assert 3 < answer.times < 8
    assert probe.measured("q", never, code) == answer
    assert probe.measured("other", ways(0.001), code).faster == "slow"


@pytest.mark.parametrize(
    ("load", "times", "kept"), [(99, 1.03, False), (99, 2, True), (0, 1.03, True)]
)
def test_a_close_answer_of_a_crowded_machine_is_not_kept(code, monkeypatch, load, times, kept):
    """Width 256 was called torch's for good, 1.03 times, by a machine with three jobs a core."""
    monkeypatch.setattr(probe.os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(probe, "times_as_fast", lambda *_: times)
    assert probe.measured("q", ways(0.002), code).faster == "slow"
    monkeypatch.setattr(probe, "times_as_fast", lambda *_: 1 / times)
    assert probe.measured("q", ways(0.002), code).faster == ("slow" if kept else "quick")


def test_other_code_or_another_machine_asks_anew(code, monkeypatch):
    old = probe.measured("q", ways(0.01), code)
    code[0].write_text("2")
    new = probe.measured("q", ways(0.0005), code)
    assert (old.faster, new.faster) == ("quick", "slow")
    monkeypatch.setattr(probe, "cpu_features", lambda: "another processor")
    with pytest.raises(AssertionError, match="measured again"):
        probe.measured("q", never, code)


@pytest.mark.parametrize(
    "damage", ["{half a li", "", "[]\n", "null\n", '{"question": 1}\n', "\0\n"]
)
def test_a_damaged_file_costs_a_measurement(code, damage):
    before = probe.measured("before", ways(0.01), code)
    with probe.answers_file().open("a") as file:
        file.write(damage)
    after = probe.measured("q", ways(0.01), code)
    assert probe.measured("before", never, code) == before
    assert probe.measured("q", never, code) == after


def test_what_another_process_answered_meanwhile_stays(code):
    answer = probe.measured("known", ways(0.01), code)

    def meanwhile():
        other = replace(answer, question="q", faster="slow")
        with probe.answers_file().open("a") as file:
            file.write(json.dumps(vars(other)) + "\n")
        return ways(0.01)()

    assert probe.measured("q", meanwhile, code).faster == "slow"


def test_many_processes_at_once_agree_and_lose_nothing(code):
    program = (
        "import random, sys; from pathlib import Path; from jstar import probe\n"
        "probe.SECONDS = probe.LONGEST = 0\n"
        "probe.os.getloadavg = lambda: (0, 0, 0)\n"  # a crowded machine keeps no close answer
        "for k in range(40):\n"
        "    two = [('a', lambda: None), ('b', lambda: None)]\n"
        "    answer = probe.measured(f'q{k}', lambda: random.sample(two, 2), [Path(sys.argv[1])])\n"
        "    print(answer.faster, answer.times)\n"
    )
    command = [sys.executable, "-c", program, str(code[0])]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0] for process in started]
    assert said[0] == said[1] == said[2]
    assert len(said[0].splitlines()) == 40
    lines = probe.answers_file().read_text().splitlines()
    assert [json.loads(line)["question"] for line in lines] == [f"q{k}" for k in range(40)]


def test_a_file_that_others_may_write_to_is_not_believed(code):
    probe.measured("q", ways(0.01), code)
    probe.answers_file().chmod(0o666)
    assert probe.measured("q", ways(0.0005), code).faster == "slow"


def test_nothing_is_lost_where_nothing_can_be_written(code, monkeypatch):
    monkeypatch.setattr(probe, "answers_file", lambda: code[0].parent / "no" / "such" / "folder")
    assert probe.measured("q", ways(0.01), code).faster == "quick"


@pytest.fixture
def clock(monkeypatch):
    """`clock(durations)`: a way that takes so long, round by round, and then so again."""
    now = [0.0]
    monkeypatch.setattr(probe.time, "process_time", lambda: now[0])
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])

    def way(durations):
        spent = itertools.cycle(durations)

        def work():
            now[0] += next(spent)

        return work

    way.now = now
    return way


@pytest.mark.parametrize(
    ("spread", "times", "rounds"),
    [(0.2, 1.05, (20, 400)), (0.2, 1.5, (5, 20)), (0.0, 1.02, (5, 6)), (0.02, 1.02, (5, 60))],
)
def test_what_is_close_is_timed_until_it_is_sure(clock, spread, times, rounds):
    """Two seconds of a shared machine called the way that was 6 % slower the faster, 1.13 times."""
    noise = np.random.default_rng(0).normal(0, spread, 1000).clip(-0.12, 0.12)
    work, other = clock(0.01 * np.exp(noise)), clock([0.01 * times] * 1000)
    found = probe.times_as_fast(work, other, 0.0, 1e3)
    assert found == pytest.approx(times, rel=0.03)
    assert rounds[0] <= clock.now[0] / (0.01 * (1 + times)) - 1 <= rounds[1]


def test_a_measurement_ends(clock):
    swings = [0.01, 0.0125]
    probe.times_as_fast(clock(swings), clock(swings[::-1]), 0.0, 2.0)
    assert 2 <= clock.now[0] < 2.1


def test_a_neighbour_that_slows_most_rounds_down_changes_no_answer(clock):
    """The median of three rounds called the way that was 10 % slower the faster one."""
    disturbed, calm = [1.0, 3.0, 3.0, 1.0, 3.0, 3.0], [1.5]
    assert probe.times_as_fast(clock(disturbed), clock(calm), 0.0) == pytest.approx(1.5)


def test_a_machine_whose_speed_drifts_changes_no_answer():
    """1.02 times as long: the fastest rounds said 1.06, medians 1.04."""
    speeds = [1.0, 1.1, 1.05, 1.2, 1.15, 1.1, 1.25, 1.2]  # of the machine, pair by pair
    a, b = [1.02 / speed for speed in speeds], [1 / speed for speed in speeds]
    a[-2], b[1] = 5.0, 5.0  # and a job that came and went
    assert probe.ratio(a, b) == pytest.approx(1.02)
    assert probe.ratio(b, a) == pytest.approx(1 / 1.02)
    assert min(a) / min(b) > 1.06
