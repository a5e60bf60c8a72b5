"""Prepared data: counts, scaling, the card's identity, and what is refused."""

import json

import numpy as np
import pytest

from jstar.config import DatasetConfig
from jstar.data import Card, open_dataset, prepare
from jstar.data.card import require_same
from jstar.errors import JstarError


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "toy.npz"
    np.savez(
        path, images=rng.integers(0, 256, (40, 4, 5, 3), dtype=np.uint8), labels=np.arange(40) % 7
    )
    return path


def config(path=None, **more):
    source = "digits" if path is None else "npz"
    return DatasetConfig(
        name="toy", source=source, path=None if path is None else str(path), **more
    )


def test_digits_are_stored_as_they_come_and_scaled_to_minus_one_to_one(tmp_path):
    from sklearn.datasets import load_digits

    card = prepare(config(), tmp_path)
    data = open_dataset(tmp_path)
    assert (len(data), card.shape, card.classes) == (1797, (1, 8, 8), 10)
    everything = data.scaled(slice(None))
    np.testing.assert_allclose(everything[:, 0], load_digits().images / 8 - 1, atol=1e-7)
    assert card.mean == pytest.approx(everything.mean(), rel=1e-5)
    assert card.std == pytest.approx(np.sqrt(everything.var(axis=0).mean()), rel=1e-5)


def test_channels_go_first_and_labels_stay(npz, tmp_path):
    prepare(config(npz), tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    raw = np.load(npz)
    np.testing.assert_array_equal(data.images_NCHW, raw["images"].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels_N, raw["labels"])
    assert data.scaled(np.array([3])).min() >= -1


def test_the_id_names_the_distribution_not_the_file(npz, tmp_path):
    first = prepare(config(npz), tmp_path / "a")
    again = prepare(config(npz), tmp_path / "b")
    mirrored = prepare(config(npz, mirror=True), tmp_path / "c")
    fewer = prepare(config(npz, limit=39), tmp_path / "d")
    assert first.id == again.id
    assert len({first.id, mirrored.id, fewer.id}) == 3
    with pytest.raises(JstarError, match="must not be mixed"):
        require_same(first.id, fewer.id, "a", "d")


def test_held_out_images_are_spread_out_and_not_trained_on(npz, tmp_path):
    card = prepare(config(npz, holdout=8), tmp_path)
    train, held = open_dataset(tmp_path), open_dataset(tmp_path, "holdout")
    assert (len(train), len(held), card.holdout) == (32, 8, 8)
    kept = {image.tobytes() for image in train.images_NCHW}
    assert not kept & {image.tobytes() for image in held.images_NCHW}
    np.testing.assert_array_equal(held.images_NCHW[1], np.load(npz)["images"][5].transpose(2, 0, 1))


def test_duplicates_are_counted(tmp_path):
    images = np.zeros((5, 4, 4), np.uint8)
    images[1, 0, 0] = images[3, 1, 1] = 9
    np.savez(tmp_path / "x.npz", images=images)
    assert prepare(config(tmp_path / "x.npz"), tmp_path / "out").duplicates == 2


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"pictures": np.zeros((3, 4, 4), np.uint8)}, "no array 'images'"),
        ({"images": np.zeros((3, 4, 4), np.float32)}, "float32"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(2, int)}, "2 labels"),
        ({"images": np.zeros((1, 4, 4), np.uint8)}, "at least 2 needed"),
    ],
)
def test_a_wrong_archive_is_one_sentence_and_writes_nothing(tmp_path, arrays, word):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(JstarError, match=word):
        prepare(config(tmp_path / "x.npz"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_edited_card_and_a_wrong_array_are_noticed(npz, tmp_path):
    out = tmp_path / "out"
    prepare(config(npz), out)
    tree = json.loads((out / "card.json").read_text())
    (out / "card.json").write_text(json.dumps({**tree, "scale": 1.0}))
    with pytest.raises(JstarError, match="is damaged or was edited"):
        Card.load(out / "card.json")
    older = {key: tree[key] for key in tree if key != "seal"}
    (out / "card.json").write_text(json.dumps({**older, "scale": 1.0}))
    with pytest.raises(JstarError, match="edited by hand"):
        Card.load(out / "card.json")
    (out / "card.json").write_text(json.dumps(tree))
    np.save(out / "images.npy", np.zeros((3, 3, 4, 5), np.uint8))
    with pytest.raises(JstarError, match="run prepare again"):
        open_dataset(out)


def test_a_folder_without_a_card_is_no_dataset(tmp_path):
    with pytest.raises(JstarError, match="run 'jstar prepare' first"):
        open_dataset(tmp_path)
