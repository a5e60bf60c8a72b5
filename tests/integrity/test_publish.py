"""Publishing swaps folders: nothing good is removed before its successor is whole."""

import os
import shutil

import pytest
from damages import cut, flip

from jstar.config import Study
from jstar.errors import JstarError
from jstar.records import read_json
from jstar.train import publish, train

SNAPSHOT = "snapshots/001.safetensors"


@pytest.fixture
def again(copied):
    """`again(**changes of train)`: the command that made the run d1-s0 of the copy."""

    def run(**changes):
        layout = copied.layout
        tree = layout.study.model_dump(mode="json")
        study = Study.parse({**tree, "train": {**tree["train"], **changes}})
        out, state = layout.run("d1", 0), layout.state("d1", 0)
        return train(study, "d1", 0, layout.data, out, state, device="cpu", threads=1)

    return run


def published(copied):
    folder = copied.layout.run("d1", 0)
    return {path.name: path.read_bytes() for path in sorted((folder / "snapshots").iterdir())}


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
def test_a_snapshot_lost_from_the_state_comes_from_the_published_run(again, copied, damage):
    before = published(copied)
    damage(copied.layout.state("d1", 0) / SNAPSHOT)
    assert again().finished
    assert published(copied) == before
    assert not list(copied.layout.run("d1", 0).glob(".*"))


def test_a_copy_is_as_good_as_a_link(again, copied, monkeypatch):
    before = published(copied)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    assert again().finished
    assert published(copied) == before
    assert (copied.layout.run("d1", 0) / SNAPSHOT).stat().st_nlink == 1


def test_damage_while_copying_is_refused_and_the_old_run_stays(again, copied, monkeypatch):
    before = published(copied)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))

    real = shutil.copyfile

    def copy(source, target):
        real(source, target)
        flip(target)

    monkeypatch.setattr(publish.shutil, "copyfile", copy)
    with pytest.raises(JstarError, match="damaged while it was copied"):
        again()
    assert published(copied) == before


class KilledError(Exception):
    """Stands for SIGKILL: nothing after it runs."""


@pytest.mark.parametrize("step", ["first rename", "second rename", "record", "clean-up"])
def test_killed_at_any_step_of_publishing_nothing_is_lost(again, copied, monkeypatch, step):
    before, out = published(copied), copied.layout.run("d1", 0)
    with monkeypatch.context() as patch:
        rename, count = publish.Path.rename, []

        def dying(self, target):
            if "snapshots" in self.name:
                count.append(self)
                if len(count) == ["first rename", "second rename"].index(step) + 1:
                    raise KilledError
            return rename(self, target)

        def die(*_, **__):
            raise KilledError

        if step == "record":
            patch.setattr(publish, "write_record", die)
        elif step == "clean-up":
            patch.setattr(publish, "write_json", die)
        else:
            patch.setattr(publish.Path, "rename", dying)
        with pytest.raises(KilledError):
            again()
    kept = {p.name: p.read_bytes() for p in out.rglob("*.safetensors")}
    assert kept == before
    # Even without the state's own files all is there: those of the published run are used.
    shutil.rmtree(copied.layout.state("d1", 0) / "snapshots")
    assert again().finished
    assert published(copied) == before
    assert not list(out.glob(".*"))


def test_a_damaged_snapshot_stops_the_run_before_it_trains_on(copied, again, monkeypatch):
    """Half-way, as after a resume: not only when it is published, days later."""
    shutil.rmtree(copied.layout.run("d1", 0))
    flip(copied.layout.state("d1", 0) / SNAPSHOT)
    monkeypatch.setattr("jstar.train.loop.run_chunk", lambda *_: pytest.fail("it trained"))
    with pytest.raises(JstarError, match=r"001.safetensors: is damaged.*remove .*state"):
        again()


def test_another_configuration_is_set_aside_whole_also_after_a_kill(copied, again, monkeypatch):
    state = copied.layout.state("d1", 0)
    before = {p.name: p.read_bytes() for p in (state / "snapshots").iterdir()}
    rename, moved = publish.Path.rename, []

    def dying(self, target):
        if moved and self.parent == state:
            raise KilledError
        moved.extend([self] if self.parent == state else [])
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(publish.Path, "rename", dying)
        with pytest.raises(KilledError):
            again(learning_rate=0.002)
    assert again(learning_rate=0.002).finished
    (aside,) = state.parent.glob("d1-s0.*")
    assert {p.name: p.read_bytes() for p in (aside / "snapshots").iterdir()} == before
    assert list((aside / "checkpoints").iterdir())
    assert read_json(copied.layout.run("d1", 0) / "run.json")["made"].keys() == {
        f"snapshots/{k:03d}.safetensors" for k in range(3)
    }
