"""Killed at any moment, prepare goes on from its journal to the same bytes."""

import json
import multiprocessing
import random
import time

import formats
import numpy as np
import pytest

from jstar.config import DatasetConfig
from jstar.data import prepare
from jstar.data.prepare import POOL_IMAGES

COUNT = POOL_IMAGES + 500  # enough for worker processes
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A zip of small images, some of them grey."""
    images = formats.pictures(COUNT, 8)
    files = {
        f"{n % 5}/{n:05d}.png": formats.encoded(image[..., :1] if n % 9 == 0 else image)
        for n, image in enumerate(images)
    }
    path = formats.write_zip(tmp_path_factory.mktemp("in") / "in.zip", files)
    return DatasetConfig(name="toy", source="images", path=str(path), holdout=50)


def run(config, out):
    return prepare(config, out, workers=2, shard=100)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(config, out):
    child = FORK.Process(target=run, args=(config, out))
    child.start()
    return child


def journal(out):
    try:
        return json.loads((out / "partial" / "journal.json").read_text())["done"]
    except FileNotFoundError:
        return 0


def test_killed_at_random_moments_it_ends_in_the_same_bytes(source, tmp_path):
    began = time.monotonic()
    run(source, tmp_path / "calm")
    seconds = time.monotonic() - began
    moments, reached = random.Random(6), []
    for _ in range(5):
        child = start(source, tmp_path / "killed")
        child.join(moments.uniform(0, 0.8 * seconds))
        child.kill()
        child.join()
        reached.append(journal(tmp_path / "killed"))
    card = run(source, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "calm")
    assert card.converted == len(range(0, COUNT, 9))
    assert max(reached) > 0, "no kill came late enough to leave something to go on from"


def test_it_does_not_start_again(source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    child = start(source, out)
    while journal(out) < 1000:
        time.sleep(0.002)
    child.kill()
    child.join()
    done = journal(out)
    # What is safe is not read again: damage there would be seen, if it were.
    begun = []
    fill = prepare.__globals__["_stored"]

    def watch(arrays, source, split, start, *rest):
        begun.append(start)
        return fill(arrays, source, split, start, *rest)

    monkeypatch.setitem(prepare.__globals__, "_stored", watch)
    run(source, out)
    assert begun == [done]
    assert done >= 1000


def test_a_changed_source_or_study_starts_afresh(source, tmp_path):
    child = start(source, tmp_path / "out")
    while journal(tmp_path / "out") < 500:
        time.sleep(0.002)
    child.kill()
    child.join()
    other = source.model_copy(update={"holdout": 51})
    run(other, tmp_path / "out")
    run(other, tmp_path / "fresh")
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


@pytest.mark.parametrize("source_name", ["npz", "parquet"])
def test_other_readers_go_on_from_the_middle(tmp_path, source_name, monkeypatch):
    images, labels = formats.pictures(60, 8), np.arange(60) % 7
    if source_name == "npz":
        np.savez_compressed(tmp_path / "in.npz", images=images, labels=labels)
        path = tmp_path / "in.npz"
    else:
        files = {str(n): formats.encoded(image) for n, image in enumerate(images)}
        path = formats.write_parquet(tmp_path / "in.parquet", files, labels)
    config = DatasetConfig(name="toy", source=source_name, path=str(path), holdout=7)
    write, seen = prepare.__globals__["_write"], []

    def break_off(partial, rows, *places):
        seen.append(len(rows.labels_B))
        if sum(seen) > 31:
            raise KeyboardInterrupt
        return write(partial, rows, *places)

    monkeypatch.setitem(prepare.__globals__, "_write", break_off)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, tmp_path / "out", shard=7)
    assert 20 <= journal(tmp_path / "out") <= 31
    monkeypatch.undo()
    prepare(config, tmp_path / "out", shard=7)
    prepare(config, tmp_path / "calm")
    assert content(tmp_path / "out") == content(tmp_path / "calm")


def test_a_smaller_dataset_leaves_nothing_of_the_larger_one(source, tmp_path):
    run(source, tmp_path)
    run(source.model_copy(update={"holdout": 0, "limit": 100}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "images.npy", "labels.npy", "card.json", "samples.png",
    }  # fmt: skip
