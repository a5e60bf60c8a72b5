"""Real data, where it is at hand: from the original formats to the known checksums."""

import hashlib
import io
import itertools

import formats
import numpy as np
import pytest
from PIL import Image

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare

SHA256 = {  # of the decoded images, [N, H, W, C]
    "cifar10": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "imagenet-samples64": "5ccad511d1841c2fd606c751c97d5779be28d3af19c22b67b09c249e6b062622",
    "tiny-imagenet": "42c0801f4b56da4b3667a3dbac49f31418f7b583636199ce093dfe9d87721758",
}
IDX_MD5 = "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9"
CIFAR_MD5 = "5dd7e06a14cb22eb9f671a540d1b7c25"  # of data_batch_1.bin


def hash_of(images_NCHW):
    pixels = np.asarray(images_NCHW).transpose(0, 2, 3, 1)
    return hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()


def cifar10(path):
    """Images and labels of the stored WebP sheets."""
    archive = np.load(path)
    data, offsets, labels = archive["webp"], archive["offsets"], archive["labels"]
    (rows, columns), (height, width, _) = archive["grid"], archive["tile"]
    sheets = []
    for low, high in itertools.pairwise(offsets):
        sheet = np.asarray(Image.open(io.BytesIO(data[low:high].tobytes())).convert("RGB"))
        tiles = sheet.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
        sheets.append(tiles.reshape(-1, height, width, 3))
    return np.concatenate(sheets)[: len(labels)], labels


def test_cifar10_in_its_original_bytes(real_data, tmp_path):
    images, labels = cifar10(real_data("cifar10-train.npz"))
    binary = formats.cifar_batches(images, labels, "binary")
    first = binary["cifar-10-batches-bin/data_batch_1.bin"]
    assert hashlib.md5(first).hexdigest() == CIFAR_MD5
    archive = formats.write_tar(tmp_path / "cifar.tar", binary)
    made = DatasetConfig(name="c", source="cifar10", path=str(archive))
    card = prepare(made, tmp_path / "binary")
    data = open_dataset(tmp_path / "binary")
    assert hash_of(data.images_NCHW) == SHA256["cifar10"]
    np.testing.assert_array_equal(data.labels_N, labels)
    assert (card.count, card.shape, card.classes) == (50_000, (3, 32, 32), 10)
    # Mean as published, of 0..1.
    assert (card.mean + 1) / 2 == pytest.approx(np.mean([0.49140, 0.48216, 0.44653]), abs=1e-5)
    python = formats.write_folder(
        tmp_path / "python", formats.cifar_batches(images, labels, "python")
    )
    again = prepare(made.model_copy(update={"path": str(python)}), tmp_path / "again")
    assert again.id == card.id


def test_fashion_mnist_in_its_original_bytes(real_data, tmp_path):
    archive = np.load(real_data("fashion-mnist-train.npz"))
    folder = formats.write_idx(
        tmp_path / "raw", archive["images"][..., 0], archive["labels"], False
    )
    found = [hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]
    assert tuple(found) == IDX_MD5
    made = DatasetConfig(name="f", source="fashion-mnist", path=str(folder), holdout=5000)
    card = prepare(made, tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    assert (card.count, card.holdout, card.shape) == (55_000, 5_000, (1, 28, 28))
    held = np.arange(5000) * 12
    kept = np.setdiff1d(np.arange(60_000), held)
    np.testing.assert_array_equal(data.images_NCHW[:, 0], archive["images"][kept, ..., 0])
    np.testing.assert_array_equal(open_dataset(tmp_path / "out", "holdout").labels_N,
                                  archive["labels"][held])  # fmt: skip


def test_tiny_imagenet_with_its_grey_files_and_one_duplicate_pair(real_data, tmp_path):
    archive = np.load(real_data("tiny-imagenet64-20k.npz"))
    data, offsets, wnids = archive["jpeg"], archive["offsets"], archive["wnids"]
    files = {}
    for n in range(len(archive["labels"])):
        wnid = wnids[n % 200]
        name = f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{n // 200:02d}.JPEG"
        files[name] = data[offsets[n] : offsets[n + 1]].tobytes()
    path = formats.write_zip(tmp_path / "tiny.zip", files)
    made = DatasetConfig(name="t", source="tiny-imagenet", path=str(path))
    card = prepare(made, tmp_path / "out")
    assert (card.count, card.shape, card.classes) == (20_000, (3, 64, 64), 200)
    assert (card.converted, card.duplicates) == (380, 1)
    assert len(card.duplicate_pairs) == 1
    found = open_dataset(tmp_path / "out").images_NCHW
    one, other = card.duplicate_pairs[0]
    np.testing.assert_array_equal(found[one], found[other])
    # Sorted by class here, round robin there: image n is image 100 (n % 200) + n // 200.
    order = np.arange(20_000)
    order = 100 * (order % 200) + order // 200
    if hash_of(found[order]) != SHA256["tiny-imagenet"]:
        pytest.skip("another JPEG library: pixels may differ by a level")


def test_imagenet_samples(real_data, tmp_path):
    path = real_data("imagenet-samples64.npz")
    prepare(DatasetConfig(name="i", source="npz", path=str(path)), tmp_path / "out")
    images = open_dataset(tmp_path / "out").images_NCHW
    assert hash_of(images) == SHA256["imagenet-samples64"]


def test_taesd_latents(real_data, tmp_path):
    path = real_data("imagenet-samples-taesd256.npz")
    made = DatasetConfig(
        name="l", source="npz", path=str(path),
        channel_mean=[0.156, -0.004, 0.044, 0.052], channel_std=[0.849, 0.922, 0.683, 0.694],
    )  # fmt: skip
    card = prepare(made, tmp_path / "out")
    assert (card.count, card.shape, card.sampled) == (1000, (4, 32, 32), False)
    assert card.mean == pytest.approx(0, abs=1e-3)
    # The channels have the stated deviation over all pixels, so a little less around each pixel's
    # own mean.
    assert 0.47 < card.std < 0.5
