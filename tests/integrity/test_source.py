"""A source is its files' names, sizes and times: one replaced is noticed, without reading any."""

import os
import time

import formats
import numpy as np
import pytest
import yaml

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.check import source_changed
from jstar.data.partial import Partial
from jstar.data.sources.base import tree_stamp

IMAGES = formats.pictures(24, 8)


@pytest.fixture
def folder(tmp_path):
    """A folder of class folders of small images."""
    files = {f"{k % 2}/{k:02d}.png": formats.encoded(image) for k, image in enumerate(IMAGES)}
    return formats.write_folder(tmp_path / "in", files)


def dataset(folder):
    return DatasetConfig(name="toy", source="images", path=str(folder), holdout=4)


def replace_first(folder):
    """Another picture under the first one's name, as large as it was."""
    path = folder / "0/00.png"
    other = formats.encoded(255 - IMAGES[0])
    path.write_bytes(other.ljust(path.stat().st_size, b"\0"))


def test_a_source_replaced_between_kill_and_resume_is_read_anew(folder, tmp_path, monkeypatch):
    out, record = tmp_path / "out", Partial.record

    def die(self, done, converted):
        record(self, done, converted)
        raise KeyboardInterrupt  # like a kill: the journal stays

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "record", die)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset(folder), out, workers=1, shard=4)
    assert (out / "partial/journal.json").is_file()
    replace_first(folder)
    card = prepare(dataset(folder), out, workers=1, shard=4)
    fresh = prepare(dataset(folder), tmp_path / "fresh", workers=1)
    assert card.id == fresh.id
    held = open_dataset(out, "holdout").images_NCHW
    assert np.array_equal(held[0], 255 - IMAGES[0].transpose(2, 0, 1))


CHANGES = {
    "a pixel": replace_first,
    "a new file": lambda folder: (folder / "0/99.png").write_bytes(b""),
    "one removed": lambda folder: (folder / "1/01.png").unlink(),
    "another name": lambda folder: (folder / "1/01.png").rename(folder / "1/98.png"),
    "another time": lambda folder: os.utime(folder / "1/01.png", (0, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_is_said_in_one_sentence(folder, tmp_path, change):
    prepare(dataset(folder), tmp_path / "out", workers=1)
    assert source_changed(tmp_path / "out") is None
    (folder / ".DS_Store").write_bytes(b"of another program")
    assert source_changed(tmp_path / "out") is None
    CHANGES[change](folder)
    said = source_changed(tmp_path / "out")
    assert str(folder) in said
    assert "\n" not in said


def test_without_a_source_or_a_dataset_nothing_is_said(folder, tmp_path):
    assert source_changed(tmp_path / "out") is None
    prepare(dataset(folder), tmp_path / "out", workers=1)
    folder.rename(tmp_path / "away")
    assert source_changed(tmp_path / "out") is None


def test_links_in_a_circle_are_walked_once(folder):
    before = tree_stamp(folder)
    (folder / "0/up").symlink_to(folder)
    began = time.monotonic()
    assert tree_stamp(folder) == tree_stamp(folder)
    assert time.monotonic() - began < 5
    (folder / "0/up").unlink()
    assert tree_stamp(folder) == before


@pytest.mark.parametrize("command", ["check", "status", "plan"])
def test_check_status_and_plan_say_it(folder, tmp_path, tiny_study, jstar, command):
    config = dataset(folder).model_dump(exclude_defaults=True)
    study = tmp_path / "study.yaml"
    tree = tiny_study(dataset=None)
    study.write_text(
        yaml.safe_dump({**tree, "dataset": config, "train": {**tree["train"], "batch": 16}})
    )
    options = ("--config", study, "--results", tmp_path / "results")
    few = ("--studies", 2) if command == "plan" else ()
    prepare(dataset(folder), tmp_path / "results/data/toy", workers=1)
    said = "has changed since it was prepared"
    status, _, err = jstar(command, *options, *few)
    assert (status, said in err) == (0, False)
    replace_first(folder)
    status, _, err = jstar(command, *options, *few)
    assert (status, err.count(said)) == (0, 1)
