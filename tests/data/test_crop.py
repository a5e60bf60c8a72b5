"""The crop gives the pixels of ADM's code, filter by filter, whatever the shape of the image."""

import numpy as np
import PIL
import pytest
from PIL import Image

from jstar.data.crop import centre_crop

BOX, BICUBIC = Image.Resampling.BOX, Image.Resampling.BICUBIC


def rows_first(image, size, resample):
    """Both passes of one filter, in the order of ADM's Pillow."""
    return image.resize((size[0], image.height), resample).resize(size, resample)


def adm(image, size, resize):
    """center_crop_arr of guided-diffusion's image_datasets.py."""
    while min(image.size) >= 2 * size:
        image = resize(image, (image.width // 2, image.height // 2), BOX)
    factor = size / min(image.size)
    image = resize(image, tuple(round(x * factor) for x in image.size), BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def noise(rng, width, height, mode="RGB"):
    """White noise: every pixel that a filter takes or leaves shows."""
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def same(found, expected):
    return np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_length_of_a_side(mode):
    """Side lengths around several halvings, odd and even, both ways up."""
    rng = np.random.default_rng(0)
    for long in range(32, 300):
        for width, height in ((long, 33), (33, long)):
            image = noise(rng, width, height, mode)
            assert same(centre_crop(image, 8), adm(image, 8, rows_first)), (width, height)


def test_shapes_at_random():
    rng = np.random.default_rng(1)
    for _ in range(300):
        size = int(rng.choice([8, 17, 32, 64]))
        width, height = (int(rng.integers(2, 10 * size)) for _ in range(2))
        image = noise(rng, width, height)
        assert same(centre_crop(image, size), adm(image, size, rows_first)), (width, height, size)


@pytest.mark.parametrize(
    ("width", "height"), [(500, 375), (375, 500), (500, 333), (333, 500), (640, 480), (2592, 1944)]
)
@pytest.mark.parametrize("size", [64, 256])
def test_photographs_as_adm_leaves_them_to_pillow(width, height, size):
    image = noise(np.random.default_rng(2), width, height)
    assert same(centre_crop(image, size), adm(image, size, Image.Image.resize))


def test_a_tall_image_is_the_same_from_every_pillow():
    """Pillow 13 filters the columns of tall images first: its pixels are not ADM's any more."""
    image = noise(np.random.default_rng(3), 100, 402)
    assert same(centre_crop(image, 32), adm(image, 32, rows_first))
    as_before = same(centre_crop(image, 32), adm(image, 32, Image.Image.resize))
    assert as_before == (int(PIL.__version__.split(".")[0]) < 13)
