"""The page of samples: its images stand beside their own labels."""

import numpy as np
import pytest
from PIL import Image

from jstar.config import DatasetConfig
from jstar.data import prepare
from jstar.data.sheet import GUTTER, MARGIN, TEXT


def sheet(tmp_path, **arrays):
    """Pixels of the page that prepare writes."""
    np.savez(tmp_path / "x.npz", **arrays)
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npz"))
    prepare(made, tmp_path / "out")
    with Image.open(tmp_path / "out/samples.png") as image:
        return np.asarray(image)


def flat(labels):
    """Images 16x16 whose colour is ten times their label, and red where they are last."""
    labels = np.asarray(labels)
    images = np.repeat(10 * labels.astype(np.uint8)[:, None], 16 * 16 * 3, axis=1)
    images = images.reshape(-1, 16, 16, 3)
    images[-1] = [200, 0, 0]
    return images


def test_a_row_is_a_class_its_images_evenly_spread(tmp_path):
    labels = np.arange(400) % 20
    page = sheet(tmp_path, images=flat(labels), labels=labels)
    step = 64 + GUTTER
    assert page.shape == (GUTTER + 10 * step, MARGIN + 12 * step, 3)
    at = page[GUTTER + 32 :: step, MARGIN + 32 :: step]
    expected = 10 * np.rint(np.linspace(0, 19, 10))
    np.testing.assert_array_equal(at[:9, :, 0], np.tile(expected[:9, None], 12))
    np.testing.assert_array_equal(at[9, :-1, 0], 190)
    np.testing.assert_array_equal(at[9, -1], [200, 0, 0])
    # Each name stands beside its row, and no two are the same.
    names = [page[GUTTER + row * step :][:64, GUTTER:MARGIN].tobytes() for row in range(10)]
    assert len({*names}) == 10


def test_with_few_images_of_a_class_each_has_its_label_below(tmp_path):
    labels = np.arange(24)
    page = sheet(tmp_path, images=flat(labels % 20), labels=labels)
    step = 64 + TEXT + 2 * GUTTER
    assert page.shape == (GUTTER + 2 * step, GUTTER + 12 * (64 + GUTTER), 3)
    at = page[GUTTER + 32 :: step, GUTTER + 32 :: 64 + GUTTER, 1].ravel()
    np.testing.assert_array_equal(at[:-1], 10 * (labels[:-1] % 20))
    below = page[GUTTER + 64 :][:TEXT].reshape(TEXT, -1, 3)
    marks = [below[:, GUTTER + n * 68 :][:, :40].tobytes() for n in range(12)]
    assert len({*marks}) == 12


def test_without_classes_and_of_latents(tmp_path):
    page = sheet(tmp_path, images=flat(np.arange(5)))
    assert page.shape == (64 + 2 * GUTTER, GUTTER + 5 * (64 + GUTTER), 3)
    latents = np.random.default_rng(0).standard_normal((5, 4, 128, 128)).astype(np.float32)
    latents[:, 0] += 9  # red by itself would be white
    page = sheet(tmp_path, latents=latents)
    assert page.shape == (64 + 2 * GUTTER, GUTTER + 5 * (64 + GUTTER), 3)
    red, green, _ = page[GUTTER:-GUTTER, GUTTER:68].reshape(-1, 3).mean(axis=0)
    assert red > green + 80


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (1, 1)])
def test_images_of_extreme_shape(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape, 3), np.uint8)
    page = sheet(tmp_path, images=images, labels=np.arange(20) % 2)
    assert max(page.shape) < 4000
