"""What computes a run's network: chosen once, noted in the run, and kept to wherever it goes on."""

import json
import re
from dataclasses import replace

import pytest
import torch

from jstar import probe
from jstar.model import dit, fast_network, ladder, network_choice
from jstar.model.network_choice import IN_C, IN_TORCH, choose_network, noted_network
from jstar.records import read_json, write_record
from jstar.train.run import Run
from jstar.train.snapshots import load_network

NARROW = ladder(1, shape=(1, 8, 8), width=16, head_width=8)
WIDE = replace(NARROW, width=104, heads=13)  # its width does not decide
LADDER = [{"name": "d1", "depth": 1, "width": 104}]
BATCH = 64  # of the tiny study


@pytest.fixture(autouse=True)
def own_answers(tmp_path, monkeypatch):
    if fast_network.network_kernel() is None:
        pytest.skip("no C compiler, or no AVX2 here")
    monkeypatch.setattr(probe, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(probe, "LONGEST", 0.0)  # no test asks how sure an answer is
    torch.set_num_threads(1)  # as run_tiny does: the question holds their number


def says(monkeypatch, way):
    """Let a measurement find that `way` is the faster one; returns what was asked."""
    asked = []

    def answer(question, ways, code):
        asked.append(question)
        return probe.Answer(question, way, 1.1, "")

    monkeypatch.setattr(network_choice, "measured", answer)
    return asked


def test_it_is_measured_only_where_the_width_does_not_decide(monkeypatch):
    asked = says(monkeypatch, IN_TORCH)
    between = replace(NARROW, width=128, heads=16)
    assert choose_network(NARROW, 64).way == IN_C
    assert choose_network(replace(NARROW, heads=4), 64).way == IN_C  # heads of 4
    assert choose_network(replace(NARROW, classic=True), 64).way == IN_TORCH
    assert choose_network(replace(NARROW, patch=1, rows=16, columns=16), 64).way == IN_TORCH
    assert choose_network(replace(NARROW, width=20, heads=2), 64).way == IN_TORCH  # heads of 10
    assert asked == []
    assert choose_network(between, 64).way == IN_TORCH
    assert len(asked) == 1


def test_a_wide_network_is_timed_on_few_images(monkeypatch):
    """From width 768 on torch was taken unasked: on Zen 5 that is twice the time of C."""
    asked = says(monkeypatch, IN_C)
    for width, most, least in ((128, 1000, 1000), (1024, 200, 100), (4096, 32, 32)):
        wide = replace(NARROW, width=width, heads=width // 64)
        assert choose_network(wide, 1000).way == IN_C
        batch = int(re.search(rf"width {width}, .* batch (\d+),", asked[-1])[1])
        assert least <= batch <= most  # of half a second of one core, but a slice at least


@pytest.mark.parametrize("why", ["no compiler", "JSTAR_NATIVE=0"])
def test_without_a_kernel_torch_does_it(why, monkeypatch):
    asked = says(monkeypatch, IN_C)
    if why == "no compiler":
        monkeypatch.setenv("CC", "/no/such/compiler")
    else:
        monkeypatch.setenv("JSTAR_NATIVE", "0")
    fast_network.network_kernel.cache_clear()
    try:
        assert choose_network(replace(NARROW, width=128, heads=16), 64).way == IN_TORCH
        assert choose_network(NARROW, 64).way == IN_TORCH
    finally:
        fast_network.network_kernel.cache_clear()
    assert asked == []


@pytest.mark.parametrize(("times", "way"), [(1.02, IN_C), (1.04, IN_TORCH)])
def test_what_is_nearly_equal_is_done_in_c(times, way, monkeypatch):
    """Beside a second job the two changed places, 1.02 times one way and the other."""
    answer = probe.Answer("q", IN_TORCH, times, "")
    monkeypatch.setattr(network_choice, "measured", lambda *_: answer)
    choice = choose_network(WIDE, 64)
    assert choice.way == way
    assert choice.why == (
        "less than 3% between the two here" if way == IN_C
        else "measured here 1.04 times as fast"
    )  # fmt: skip


def test_both_ways_are_timed_as_they_are(monkeypatch):
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    calls, c_network = [], dit.c_network
    monkeypatch.setattr(dit, "c_network", lambda *a: calls.append(1) or c_network(*a))
    with torch.no_grad():  # as where a run resumes
        choice = choose_network(WIDE, 8)
    assert choice.way in (IN_C, IN_TORCH)
    assert len(calls) == 1 + probe.ROUNDS  # and torch as often without it
    assert choose_network(WIDE, 8) == choice
    assert len(calls) == 1 + probe.ROUNDS


def test_a_run_of_before_this_choice_goes_on_as_it_did():
    assert noted_network(None, NARROW) == IN_C
    assert noted_network(None, replace(NARROW, heads=4)) == IN_TORCH  # C had no heads of 4
    assert noted_network(None, WIDE) == IN_TORCH
    assert noted_network(IN_C, WIDE) == IN_C


def plant(way):
    """Write into this machine's file that `way` is faster for WIDE's run, whatever it held."""
    file = probe.answers_file()
    file.unlink(missing_ok=True)
    choose_network(WIDE, BATCH)
    answer = json.loads(file.read_text())
    file.write_text(json.dumps({**answer, "faster": way, "times": 1.5}) + "\n")
    assert choose_network(WIDE, BATCH).way == way


def crash_once(monkeypatch):
    written = Run.write_snapshot

    def crash(self, index):
        if index == 3:
            monkeypatch.setattr(Run, "write_snapshot", written)
            raise ZeroDivisionError
        written(self, index)

    monkeypatch.setattr(Run, "write_snapshot", crash)


@pytest.mark.parametrize(("began", "says_now"), [(IN_C, IN_TORCH), (IN_TORCH, IN_C)])
def test_a_resumed_run_rounds_as_it_began_whatever_the_machine_says_now(
    began, says_now, run_tiny, contents, monkeypatch
):
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    plant(began)
    _, calm = run_tiny("calm", ladder=LADDER)
    crash_once(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        run_tiny("stormy", ladder=LADDER, train={"checkpoint_images": 1})
    plant(says_now)
    status, stormy = run_tiny("stormy", ladder=LADDER, train={"checkpoint_images": 1})
    assert status.finished
    assert contents(stormy) == contents(calm)
    assert read_json(stormy / "out" / "run.json")["block"] == began
    _, other = run_tiny("other", ladder=LADDER)
    assert contents(other) != contents(calm)  # the choice does change the rounding


def test_a_run_is_evaluated_by_what_trained_it(run_tiny, monkeypatch):
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    for way in (IN_C, IN_TORCH):
        plant(way)
        _, folder = run_tiny(way, ladder=LADDER)
        network = load_network(folder / "out", 5, 0.1)
        assert network.in_c == (way == IN_C)
    record = folder / "out" / "run.json"
    info = read_json(record)
    del info["block"]  # as an earlier jstar wrote it
    write_record(record, info)
    assert not load_network(folder / "out", 5, 0.1).in_c


def test_a_run_in_c_that_goes_on_without_a_compiler_says_so(run_tiny, monkeypatch, capsys):
    crash_once(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        run_tiny("run", train={"checkpoint_images": 1})
    monkeypatch.setenv("JSTAR_NATIVE", "0")
    fast_network.network_kernel.cache_clear()
    try:
        status, folder = run_tiny("run", train={"checkpoint_images": 1})
    finally:
        fast_network.network_kernel.cache_clear()
    assert status.finished
    assert "its network was computed in C" in capsys.readouterr().err
    assert read_json(folder / "out" / "run.json")["block"] == IN_TORCH
