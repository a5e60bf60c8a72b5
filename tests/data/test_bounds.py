"""Bounds: regular files only, and no memory for what a header merely promises."""

import gzip
import os
import pickle
import resource
import struct
import zipfile
import zlib
from pathlib import Path

import formats
import numpy as np
import pytest

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.errors import JstarError

GUARD = 1 << 29  # bytes that refusing may take on top


@pytest.fixture(autouse=True)
def little_memory():
    """What takes more fails instead of slowing the machine down."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + GUARD, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refused(tmp_path, match, source, path, **more):
    made = DatasetConfig(name="toy", source=source, path=str(path), **more)
    with pytest.raises(JstarError, match=match) as caught:
        prepare(made, tmp_path / "refused", workers=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


def images(names):
    pixels = formats.pictures(len(names))
    return {name: formats.encoded(image) for name, image in zip(names, pixels, strict=True)}


# --- NumPy files ----------------------------------------------------------------------------------


def npy(shape, data=b"\0" * 4000, descr="|u1"):
    stream = formats.io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data


@pytest.mark.parametrize("packing", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("shape", "match"), [
    ((10**9, 8, 8, 3), "damaged or cut short .row 20 is missing"),
    ((2**62, 2**62, 8, 3), "damaged or cut short"),
    ((10, 0, 8, 3), "no axis may be empty"),
    ((-1, 8, 8, 3), "no axis may be empty"),
    ((10, -8, -8, 3), "no axis may be empty"),
])  # fmt: skip
def test_numpy_headers_that_promise_too_much(tmp_path, packing, shape, match):
    path = tmp_path / ("x.npy" if packing is None else "x.npz")
    if packing is None:
        path.write_bytes(npy(shape))
    else:
        with zipfile.ZipFile(path, "w", packing) as archive:
            archive.writestr("images.npy", npy(shape))
    match = "cut short" if packing == zipfile.ZIP_DEFLATED and "row" in match else match
    refused(tmp_path, match, "npz", path)


def test_the_labels_of_an_npz_promise_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", npy((20, 8, 8, 3)))
        archive.writestr("labels.npy", npy((10**9,), b"", "<i8"))
    refused(tmp_path, "20 images but 1000000000 labels|cut short", "npz", tmp_path / "x.npz")


def test_images_of_an_npz_that_are_too_large(tmp_path):
    np.save(tmp_path / "x.npy", formats.pictures(4, 9))
    refused(tmp_path, "images are 9x9 pixels, dataset.max_pixels allows 80", "npz",
            tmp_path / "x.npy", max_pixels=80)  # fmt: skip


def test_float_images_are_no_latents(tmp_path):
    floats = np.random.default_rng(0).random((6, 16, 16, 3), np.float32)
    np.save(tmp_path / "x.npy", floats)
    refused(tmp_path, "look like images with channels last", "npz", tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", floats.transpose(0, 3, 1, 2).copy())
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npy"))
    assert prepare(made, tmp_path / "out").shape == (3, 16, 16)


# --- image files and archives ---------------------------------------------------------------------


def test_a_member_that_unpacks_to_gigabytes(tmp_path):
    files = images(["a.png", "b.png"])
    path = formats.write_zip(tmp_path / "x.zip", files, zipfile.ZIP_DEFLATED)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 10)) + packer.flush()
    for promised, match in ((1 << 30, "has 1073741824 bytes unpacked, .*dataset.max_pixels"),
                            (100, "its length is not what the directory says")):  # fmt: skip
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("c.png", b"x")
        at = len(b"PK..") + 26 + len("c.png")
        lie = struct.pack("<HHHIII", 8, 0, 0, 1, len(data), promised)
        local = b"PK\x03\x04" + struct.pack("<HH", 20, 0) + lie + struct.pack("<HH", 5, 0)
        entry = b"PK\x01\x02" + struct.pack("<HHH", 20, 20, 0) + lie
        entry += struct.pack("<HHHHHII", 5, 0, 0, 0, 0, 0, 0) + b"c.png"
        assert len(local) + 5 == at
        body = local + b"c.png" + data
        end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(body), 0)
        path.write_bytes(body + entry + end)
        refused(tmp_path, match, "images", path)


def test_an_image_of_too_many_pixels(tmp_path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    png = formats.encoded(formats.pictures(1)[0])[:8] + chunk(b"IHDR", head)
    png += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path = formats.write_folder(tmp_path / "x", {"a.png": png, "b.png": png})
    refused(tmp_path, "a.png: is 12000x12000 pixels, dataset.max_pixels allows 100000000",
            "images", path, size=8)  # fmt: skip
    good = formats.write_folder(tmp_path / "y", images(["a.png", "b.png"]))
    refused(tmp_path, "8x8 pixels, dataset.max_pixels allows 63", "images", good, max_pixels=63)
    made = DatasetConfig(name="toy", source="images", path=str(good), max_pixels=64)
    assert prepare(made, tmp_path / "out").count == 2


def test_a_dataset_json_of_gigabytes(tmp_path):
    files = images(["a.png", "b.png"]) | {"dataset.json": bytes(1 << 22)}
    path = formats.write_zip(tmp_path / "x.zip", files, zipfile.ZIP_DEFLATED)
    refused(tmp_path, "dataset.json: has 4194304 bytes unpacked, allowed are", "images", path)


def test_a_tar_that_promises_more_than_it_has(tmp_path):
    inner = bytearray(formats.tar_bytes({"a.png": b"x" * 600}))
    inner[124:136] = b"%011o\0" % (1 << 32)
    total = sum(inner[:148]) + sum(inner[156:512]) + 8 * 32
    inner[148:156] = b"%06o\0 " % total
    path = formats.write_tar(tmp_path / "x.tar", {"n01440764.tar": bytes(inner)})
    refused(tmp_path, "damaged or cut short|bytes unpacked", "images", path)


# --- MNIST and CIFAR-10 ---------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("shape", "match"), [
    ((2**32 - 1, 2**32 - 1, 2**32 - 1), "damaged or cut short"),
    ((4, 0, 28), "no axis may be empty"),
])  # fmt: skip
def test_idx_headers_that_promise_too_much(tmp_path, packed, shape, match):
    folder = formats.write_idx(
        tmp_path / "x", formats.pictures(4, 28, 1)[..., 0], np.arange(4), packed
    )
    data = struct.pack(">IIII", 0x803, *shape) + bytes(100)
    file = next(folder.glob("train-images*"))
    file.write_bytes(gzip.compress(data) if packed else data)
    refused(tmp_path, match, "mnist", folder)


def cifar(tmp_path, first):
    labels = np.arange(50) % 10
    files = formats.cifar_batches(formats.pictures(50, 32), labels, "python")
    folder = formats.write_folder(tmp_path / "c", files)
    (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(first)
    return folder


def array_pickle(shape, arguments=((0,), b"b"), kind=b"u1", raw=b"x" * 3072):
    """A batch whose array states `shape`: as NumPy pickles it."""

    class Kind:
        def __reduce__(self):
            return np.dtype, (kind, False, True)

    class Array:
        def __reduce__(self):
            return np._core.multiarray._reconstruct, (np.ndarray, *arguments), (
                1, shape, Kind(), False, raw)  # fmt: skip

    return pickle.dumps({b"data": Array(), b"labels": [1]}, protocol=2)


@pytest.mark.parametrize("first", [
    array_pickle((2**36, 1)),
    array_pickle((1, 3072), kind=b"V68719476736"),
    b"\x80\x04\x8e" + struct.pack("<Q", 2**36) + b"x.",  # BINBYTES8
    b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 2) + b".",  # LONG_BINPUT
    b"\x80\x02Np68719476736\n.",  # PUT
    pickle.dumps({b"data": 3, b"labels": [1]}),
], ids=["shape", "kind", "bytes", "binput", "put", "number"])  # fmt: skip
def test_cifar_pickles_that_ask_for_memory(tmp_path, first):
    refused(tmp_path, "data_batch_1: is not a batch of CIFAR-10", "cifar10", cifar(tmp_path, first))


def test_nothing_is_made_of_what_a_cifar_pickle_reconstructs(tmp_path):
    path = cifar(tmp_path, array_pickle((1, 3072), ((2**36,), b"b")))
    prepare(DatasetConfig(name="toy", source="cifar10", path=str(path)), tmp_path / "out")
    images_NCHW = open_dataset(tmp_path / "out").images_NCHW
    assert images_NCHW.shape[0] == 41
    assert (images_NCHW[0] == ord("x")).all()


def test_a_cifar_batch_is_read_without_numpys_help(tmp_path):
    images_NHWC, labels = formats.pictures(50, 32), np.arange(50) % 10
    files = formats.cifar_batches(images_NHWC, labels, "python")
    path = formats.write_tar(tmp_path / "c.tar", files)
    prepare(DatasetConfig(name="toy", source="cifar10", path=str(path)), tmp_path / "out")
    found = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(found.images_NCHW, images_NHWC.transpose(0, 3, 1, 2))
    large = formats.write_folder(tmp_path / "l", {})
    large.mkdir()
    with (large / "data_batch_1").open("wb") as file:
        file.truncate(1 << 33)
    refused(tmp_path, "has 8589934592 bytes, a batch of CIFAR-10 has 31 million", "cifar10", large)


# --- downsampled ImageNet -------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 4, 10])
def test_a_batch_of_imagenet64_that_is_missing(tmp_path, missing):
    pixels = formats.pictures(20, 64)
    folder = formats.write_downsampled(tmp_path / "x", pixels, np.arange(20), batches=10)
    batch = folder / f"train_data_batch_{missing}.npz"
    data = batch.read_bytes()
    batch.unlink()
    refused(tmp_path, f"lacks train_data_batch_{missing}.npz", "imagenet64", folder)
    batch.write_bytes(data)
    (folder / "train_data_batch_02.npz").write_bytes(data)
    refused(tmp_path, "allowed is each number from 1 once", "imagenet64", folder)


@pytest.mark.parametrize("label", [-1, 1000, 5041])
def test_a_label_of_imagenet64_that_is_no_class(tmp_path, label):
    labels = np.arange(20)
    labels[13] = label  # one more in the file
    folder = formats.write_downsampled(tmp_path / "x", formats.pictures(20, 64), labels, 10)
    refused(tmp_path, f"batch_7.npz: has the label {label + 1}, allowed are 1 to 1000",
            "imagenet64", folder)  # fmt: skip


# --- regular files --------------------------------------------------------------------------------


def test_only_regular_files_are_read(tmp_path):
    path = formats.write_folder(tmp_path / "x", images(["a/1.png", "b/2.png"]))
    os.mkfifo(path / "a" / "3.png")
    refused(tmp_path, "3.png: is not a regular file", "images", path)
    os.mkfifo(tmp_path / "x.tar")
    refused(tmp_path, "x.tar': is neither a regular file nor a folder", "images",
            tmp_path / "x.tar")  # fmt: skip
    refused(tmp_path, "/dev/zero': is neither", "npz", "/dev/zero")
    for source, name in (("parquet", "0.parquet"), ("webdataset", "0.tar"),
                         ("imagenet64", "train_data_batch_1.npz"),
                         ("cifar10", "data_batch_1")):  # fmt: skip
        (tmp_path / source).mkdir()
        os.mkfifo(tmp_path / source / name)
        refused(tmp_path, f"{name}: is not a regular file", source, tmp_path / source)
