"""Cooldowns: branches of a run whose learning rate falls to 0 at one of its snapshots."""

import multiprocessing
import os
import shutil
import signal
import sys

import pytest
from safetensors.torch import load_file

from jstar.config import Study, TrainConfig
from jstar.errors import JstarError
from jstar.records import read_json
from jstar.train import loop, train
from jstar.train.checkpoint import load_newest
from jstar.train.events import training_events
from jstar.train.optimizer import learning_rate
from jstar.train.run import BRANCHES, CHECKPOINTS
from jstar.train.snapshots import (
    cooldown_file,
    list_cooldowns,
    list_snapshots,
    load_network,
    snapshot_file,
)

COOLDOWN = {"share": 0.25, "snapshots": 2}
EVERY_CHUNK = {"cooldown": COOLDOWN, "checkpoint_images": 1}


class KilledError(Exception):
    pass


def crash_at(monkeypatch, moments):
    """Let runs die at (branch index or None, step), once each: trained so far, nothing written."""
    chunk, left = loop.run_chunk, set(moments)

    def crashing(run, border):
        loss = chunk(run, border)
        place = (run.branch.index if run.branch else None, border)
        if place in left:
            left.remove(place)
            raise KilledError
        return loss

    monkeypatch.setattr(loop, "run_chunk", crashing)
    return left


def events(**keys):
    config = {"images": 6400, "batch": 64, "snapshots": 6, "first_snapshot": 640}
    return training_events(TrainConfig(**(config | keys)), 1e6, 256)


def test_branches_end_at_snapshots_and_begin_after_the_warm_up():
    some = events(cooldown=COOLDOWN, warmup_images=640)
    assert some.snapshots == (10, 16, 25, 40, 63, 100)
    # The first, whose branch would begin after 512 images, is not among them.
    assert [(b.index, b.start, b.end) for b in some.branches] == [(1, 12, 16), (5, 75, 100)]
    every = events(cooldown={"share": 0.25, "snapshots": 6}, warmup_images=0).branches
    assert [b.index for b in every] == list(range(6))
    assert [b.index for b in events(cooldown={"snapshots": 3}, warmup_images=0).branches] == [
        0, 2, 5
    ]  # fmt: skip
    only = events(cooldown={"share": 0.9, "snapshots": 1}, warmup_images=6400).branches
    assert [(b.index, b.start) for b in only] == [(5, 10)]  # the last always, warmed up or not
    assert events(warmup_images=0).branches == ()
    step, met = 0, []
    schedule = events(cooldown={"share": 0.25, "snapshots": 6}, warmup_images=0)
    while step < schedule.steps:
        met.append(step := schedule.border(step))
    assert {b.start for b in every} <= set(met)
    with pytest.raises(JstarError, match="a run of one step"):
        events(images=64, first_snapshot=64, snapshots=4, cooldown=COOLDOWN)


def test_images_are_counted_over_the_branches():
    some = events(cooldown=COOLDOWN, warmup_images=640)
    first, last = some.branches
    assert (some.images, some.total_images) == (6400, 6400 + 64 * (4 + 25))
    assert some.trained_images(30, None) == 30 * 64
    assert some.trained_images(14, first) == 6400 + 2 * 64
    assert some.trained_images(100, last) == some.total_images


def test_the_rate_falls_from_its_height_to_nothing():
    config = TrainConfig(images=6400, batch=64, warmup_images=640, learning_rate=0.01,
                         cooldown=COOLDOWN)  # fmt: skip
    schedule = events(cooldown=COOLDOWN, warmup_images=640)
    branch = schedule.branches[-1]
    peak = learning_rate(config, 768, 64 * 75)
    rates = [learning_rate(config, 768, 64 * (step + 1), branch) for step in range(75, 100)]
    assert peak == 0.01
    assert rates == pytest.approx([peak * (1 - k / 25) for k in range(25)])
    assert learning_rate(config, 768, 64 * 100) == peak  # the run itself does not decay


def test_a_branch_of_one_step_is_the_run_itself(run_tiny):
    """Its only step has the full rate: the weights are the run's at the same images."""
    status, folder = run_tiny(train={"cooldown": {"share": 1e-6, "snapshots": 1}})
    assert status.finished
    assert status.images == 6400 + 64
    newest, _ = load_newest(folder / "state" / CHECKPOINTS)
    end = load_file(cooldown_file(folder / "out", 5))
    weights = {k.removeprefix("weights/network."): v for k, v in newest.parts[0].items()
               if k.startswith("weights/")}  # fmt: skip
    assert {name.removeprefix("0/") for name in end} == set(weights)
    assert all(end[f"0/{name}"].equal(value) for name, value in weights.items())
    averages = load_file(snapshot_file(folder / "out", 5))
    assert not any(end[f"0/{name}"].equal(averages[f"0.1/{name}"]) for name in weights)


def test_cooldowns_lie_beside_snapshots_and_leave_the_run_alone(run_tiny):
    _, folder = run_tiny(train={"cooldown": COOLDOWN})
    out = folder / "out"
    info = read_json(out / "run.json")
    assert info["cooldowns"] == [1, 5]
    assert info["cooldown_images"] == 64 * (4 + 25)
    assert info["images"] == 6400
    assert list_cooldowns(out) == [list_snapshots(out)[k] for k in (1, 5)]
    assert not (folder / "state" / BRANCHES).exists()
    assert read_json(folder / "state" / "state.json")["images"] == 6400 + 64 * 29
    network = load_network(out, 5, 0.0)
    assert network.state_dict().keys() == load_network(out, 5, 0.1).state_dict().keys()
    with pytest.raises(JstarError, match=r"no cooldown to snapshot 2, allowed are 1, 5"):
        load_network(out, 2, 0.0)
    # What a branch records stays out of the run's own tables.
    table = (out / "telemetry.csv").read_text().splitlines()
    assert table[-1].startswith("6400,")
    assert len(table) == len(set(table))


@pytest.mark.parametrize("noise", [None, {"law": "optimal_loss"}], ids=["own law", "optimal loss"])
def test_killed_in_run_and_branch_it_ends_the_same(noise, curve, run_tiny, contents, monkeypatch):
    keys = {"cooldown": COOLDOWN, "noise": noise}
    _, calm = run_tiny("calm", curve=curve, train=keys)
    # Between a branch's beginning and the next checkpoint; just before one; within both branches.
    moments = {(None, 12), (None, 76), (1, 14), (1, 16), (5, 76), (5, 88), (5, 100)}
    left = crash_at(monkeypatch, {(None, 14)})
    with pytest.raises(KilledError):
        run_tiny("stormy", curve=curve, train=keys)
    left = crash_at(monkeypatch, moments)
    for _ in moments:
        with pytest.raises(KilledError):
            run_tiny("stormy", curve=curve, train=keys | EVERY_CHUNK)
    assert not left
    status, stormy = run_tiny("stormy", curve=curve, train=keys | EVERY_CHUNK)
    assert status.finished
    assert contents(calm) == contents(stormy)
    assert {"cooldown-001.safetensors", "cooldown-005.safetensors"} <= set(contents(calm))


def train_until(place, study, data, folder):
    """Train in a process that kills itself where it has trained up to `place`."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    chunk = loop.run_chunk

    def killed(run, border):
        loss = chunk(run, border)
        if (run.branch.index if run.branch else None, border) == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    loop.run_chunk = killed
    train(study, "d1", 0, data, folder / "out", folder / "state", device="cpu", threads=1)


def test_sigkill_before_and_after_a_branch_begins_and_within(
    run_tiny, contents, tiny_study, digits, tmp_path
):
    short = {"images": 1280, "cooldown": {"share": 0.25, "snapshots": 1}}
    _, calm = run_tiny("calm", train=short)
    study = Study.parse(tiny_study(train=short | {"checkpoint_images": 1}))
    context = multiprocessing.get_context("forkserver")  # imports torch once
    context.set_forkserver_preload(["jstar.train"])
    for place in ((None, 15), (None, 16), (5, 18), None):
        arguments = (place, study, digits, tmp_path / "stormy")
        process = context.Process(target=train_until, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == (0 if place is None else -signal.SIGKILL)
    assert contents(calm) == contents(tmp_path / "stormy")


def test_a_stop_within_a_branch_is_obeyed(run_tiny, contents, monkeypatch):
    opened, plain = [], loop.open_writer

    def opening(kind, folder, images):
        opened.append(images)
        return plain(kind, folder, images)

    monkeypatch.setattr(loop, "open_writer", opening)
    short = {"images": 1280, "cooldown": COOLDOWN}
    keys = short | {"time_budget_minutes": 1e-9}  # a chunk a session
    met = []
    for _ in range(200):
        status, folder = run_tiny("asked", train=keys)
        if status.finished:
            break
        assert (status.exit_code, status.reason) == (75, "time budget")
        assert not (folder / "out" / "run.json").exists()
        met.append(status.images)
    _, calm = run_tiny("calm", train=short)
    assert met == sorted(set(met))
    assert opened[: len(met) + 1] == [0, *met]  # a record of the run is never sent back
    assert met[-1] > 1280
    assert contents(calm) == contents(folder)


def test_a_branch_whose_beginning_is_lost_is_one_sentence(run_tiny, monkeypatch, tmp_path):
    short = {"images": 2560, "cooldown": COOLDOWN}
    crash_at(monkeypatch, {(5, 31)})
    with pytest.raises(KilledError):
        run_tiny(train=short)
    folder = tmp_path / "run" / "state" / BRANCHES / "005"
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    said = "holds no intact state of the cooldown to snapshot 5"
    with pytest.raises(JstarError, match=f"{said}.*says otherwise.*remove .*state to train"):
        run_tiny(train=short)
    shutil.rmtree(folder)
    with pytest.raises(JstarError, match=f"{said}.*no checkpoint is there"):
        run_tiny(train=short)


def test_another_cooldown_is_another_run(run_tiny, contents, tiny_study):
    short = {"images": 1280}
    _, folder = run_tiny(train=short)
    plain = contents(folder)
    # A run without is what it was before there were any.
    assert "cooldown" not in read_json(folder / "out" / "run.json")["config"]["train"]
    run_tiny(train=short | {"cooldown": {"snapshots": 1}})
    both = contents(folder)
    assert len(set(both) - set(plain)) == 1
    # Every step is a border of so short a run anyway: that a branch begins changes nothing in it.
    assert {name: both[name] for name in plain} == plain
    study = Study.parse(tiny_study(train={"cooldown": COOLDOWN}))
    assert study.content("tune") == Study.parse(tiny_study()).content("tune")
    assert study.content("train", "d1") != Study.parse(tiny_study()).content("train", "d1")
