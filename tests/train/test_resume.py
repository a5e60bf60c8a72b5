"""Interrupted and resumed equals uninterrupted, to the last bit."""

import os
import signal

import pytest

from jstar.errors import JstarError
from jstar.records import read_json
from jstar.train import loop
from jstar.train.run import Run
from jstar.train.snapshots import list_snapshots

EVERY_CHUNK = {"checkpoint_images": 1}


class KilledError(Exception):
    pass


@pytest.mark.parametrize("noise", [None, {"law": "optimal_loss"}], ids=["own law", "optimal loss"])
def test_resumed_after_a_crash_is_bitwise_equal(noise, curve, run_tiny, contents, monkeypatch):
    law = {"noise": noise}
    _, calm = run_tiny("calm", curve=curve, train=law)
    snapshot, met = Run.write_snapshot, []

    def crash(self, index):
        if index >= 2 and index not in met:
            met.append(index)
            raise KilledError
        snapshot(self, index)

    monkeypatch.setattr(Run, "write_snapshot", crash)
    for _ in range(4):
        with pytest.raises(KilledError):
            run_tiny("stormy", curve=curve, train={**law, **EVERY_CHUNK})
    status, stormy = run_tiny("stormy", curve=curve, train={**law, **EVERY_CHUNK})
    assert status.finished
    assert met == [2, 3, 4, 5]
    assert contents(calm) == contents(stormy)
    assert ("noise_law.csv" in contents(calm)) == (noise is not None)


def test_a_signal_asks_for_a_checkpoint_and_another_start(run_tiny, contents, monkeypatch):
    _, calm = run_tiny("calm")
    record, sent = loop._record, []

    def signalled(run, loss, writer):
        record(run, loss, writer)
        if run.step > 40 and not sent:
            sent.append(run.step)
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(loop, "_record", signalled)
    status, folder = run_tiny("asked")
    assert (status.finished, status.exit_code, status.reason) == (False, 75, "SIGUSR1")
    assert status.images == sent[0] * 64
    assert not (folder / "out" / "run.json").exists()
    status, folder = run_tiny("asked")
    assert status.finished
    assert status.exit_code == 0
    assert contents(calm) == contents(folder)


def test_run_json_says_what_ran(run_tiny):
    _, folder = run_tiny(model="d2")
    info = read_json(folder / "out" / "run.json")
    assert info["images"] == 6400
    assert info["flops"] == 6400 * 3 * info["flops_per_image"]
    snapshots = list_snapshots(folder / "out")
    assert (snapshots[0].images, snapshots[-1].images) == (640, 6400)
    assert snapshots[-1].flops == info["flops"]


def test_another_configuration_is_refused_by_name(run_tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_snapshot", lambda self, index: 1 / 0 if index == 3 else None)
        with pytest.raises(ZeroDivisionError):
            run_tiny(train=EVERY_CHUNK)
    with pytest.raises(JstarError, match=r"run.train.learning_rate was 0.003 and is 0.01"):
        run_tiny(train={"learning_rate": 0.01})


def test_a_published_run_makes_room_for_a_changed_study_and_nothing_is_lost(run_tiny, contents):
    _, folder = run_tiny()
    before = contents(folder)
    old = read_json(folder / "out" / "run.json")["fingerprint"]
    status, _ = run_tiny(train={"learning_rate": 0.01})
    assert status.finished
    assert contents(folder) != before
    kept = folder / f"state.{old}" / "snapshots"
    assert {p.name: p.read_bytes() for p in kept.glob("*.safetensors")} == {
        name: content for name, content in before.items() if name.endswith(".safetensors")
    }
    run_tiny()  # and back again
    assert contents(folder) == before
