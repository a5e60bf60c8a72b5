"""Input that cannot be used: one clear sentence, and nothing half-written stays behind."""

import errno
import os
import shutil
import subprocess
import sys

import formats
import numpy as np
import pytest

from jstar.config import DatasetConfig
from jstar.data import prepare
from jstar.data.check import image_count
from jstar.errors import JstarError


def refused(tmp_path, match, source, path=None, **more):
    """Prepare must raise one sentence that matches, and leave no file."""
    made = DatasetConfig(
        name="toy", source=source, path=None if path is None else str(path), **more
    )
    with pytest.raises(JstarError, match=match) as caught:
        prepare(made, tmp_path / "out", shard=2)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return made


def images(count=6, side=8, kind="PNG"):
    return {
        f"{n}.png": formats.encoded(p, kind) for n, p in enumerate(formats.pictures(count, side))
    }


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_a_truncated_cifar_archive(tmp_path, kind):
    files = formats.cifar_batches(formats.pictures(50, 32), np.arange(50) % 10, kind)
    path = formats.write_tar(tmp_path / "c.tar.gz", files, "w:gz")
    path.write_bytes(path.read_bytes()[:-20_000])
    refused(tmp_path, "c.tar.gz.*damaged or cut short", "cifar10", path)
    path.write_bytes(b"not an archive")
    refused(tmp_path, "c.tar.gz.*damaged or cut short", "cifar10", path)


def test_a_cifar_archive_without_a_batch(tmp_path):
    files = formats.cifar_batches(formats.pictures(50, 32), np.arange(50) % 10, "binary")
    files.pop("cifar-10-batches-bin/data_batch_3.bin")
    path = formats.write_tar(tmp_path / "c.tar", files)
    refused(tmp_path, "holds no batch 'data_batch_3'", "cifar10", path)


def test_a_cifar_pickle_that_names_a_function_is_not_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    import pickle

    path = formats.write_folder(tmp_path / "c", {"data_batch_1": pickle.dumps(Harm())})
    refused(tmp_path, "data_batch_1: is not a batch of CIFAR-10.*mkdir", "cifar10", path)
    assert not (tmp_path / "harm").exists()


def test_a_wrong_checksum(tmp_path):
    np.save(tmp_path / "x.npy", formats.pictures(4))
    refused(tmp_path, "x.npy: has the sha256 .* damaged or another file", "npz",
            tmp_path / "x.npy", sha256="0" * 64)  # fmt: skip


def test_a_damaged_byte_inside_a_zip(tmp_path):
    path = formats.write_zip(tmp_path / "x.zip", images())
    data = bytearray(path.read_bytes())
    data[600] ^= 255
    path.write_bytes(data)
    refused(tmp_path, "x.zip.*damaged or cut short", "images", path)


@pytest.mark.parametrize("cut", [10, 3000])
def test_truncated_archives_of_images(tmp_path, cut):
    archive = formats.write_zip(tmp_path / "x.zip", images(20))
    archive.write_bytes(archive.read_bytes()[:-cut])
    refused(tmp_path, "x.zip: is damaged or cut short, or not a zip", "images", archive)
    tar = formats.write_tar(tmp_path / "x.tar", {"a.png": b"0" * 20_000})
    tar.write_bytes(tar.read_bytes()[:-11_000])
    refused(tmp_path, "x.tar: is damaged or cut short, or not a tar", "images", tar)


def test_a_truncated_image(tmp_path):
    files = images(3, 64)
    files["1.png"] = files["1.png"][:-200]
    refused(
        tmp_path, "1.png: is not a whole", "images", formats.write_folder(tmp_path / "i", files)
    )


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_a_truncated_or_damaged_npz(tmp_path, pack):
    path = tmp_path / "x.npz"
    pack(path, images=formats.pictures(50))
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])
    refused(tmp_path, "x.npz: is not a .npz archive", "npz", path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    path.write_bytes(damaged)
    refused(tmp_path, "x.npz: is damaged or cut short", "npz", path)


def test_a_truncated_npy_and_idx(tmp_path):
    np.save(tmp_path / "x.npy", formats.pictures(50))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-100])
    refused(tmp_path, "x.npy: is damaged or cut short .row 49", "npz", tmp_path / "x.npy")
    for packed in (True, False):
        folder = formats.write_idx(
            tmp_path / f"idx{packed}", formats.pictures(9, 28, 1)[..., 0], np.arange(9), packed
        )
        file = next(folder.glob("train-images*"))
        file.write_bytes(file.read_bytes()[:-100])
        refused(tmp_path, "train-images.*damaged or cut short", "mnist", folder)


def test_a_text_file_named_npz(tmp_path):
    (tmp_path / "x.npz").write_text("hello")
    made = refused(tmp_path, "x.npz: is not a .npz archive", "npz", tmp_path / "x.npz")
    with pytest.raises(JstarError, match="not a .npz archive"):
        image_count(made)


def test_an_npz_of_python_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.array([{}, {}], dtype=object))
    refused(tmp_path, "plain numbers", "npz", tmp_path / "x.npz")


def test_images_with_channels_first(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 3, 8, 8), np.uint8))
    refused(tmp_path, r"\(9, 3, 8, 8\).*channels last", "npz", tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/e.png",
                                  "..\\evil.png"])  # fmt: skip
def test_path_traversal(tmp_path, name):
    files = {**images(), name: formats.encoded(formats.pictures(1)[0])}
    refused(tmp_path, "outside of the archive", "images",
            formats.write_zip(tmp_path / "x.zip", files))  # fmt: skip
    refused(tmp_path, "outside of the archive", "images",
            formats.write_tar(tmp_path / "x.tar", files))  # fmt: skip


def test_an_image_of_another_size(tmp_path):
    files = {**images(5), "9.png": formats.encoded(formats.pictures(1, 9)[0])}
    folder = formats.write_folder(tmp_path / "i", files)
    refused(
        tmp_path, "9.png: is 9x9 pixels, the first image is 8x8.*dataset.size", "images", folder
    )


def test_sixteen_bits_cmyk_palette_and_transparency(tmp_path):
    from PIL import Image

    folder = formats.write_folder(tmp_path / "i", images(3))

    def with_last(image, kind, match):
        image.save(folder / f"9.{kind}")
        refused(tmp_path, match, "images", folder)
        (folder / f"9.{kind}").unlink()

    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    with_last(deep, "png", "9.png: has 16 bits a channel")
    with_last(Image.new("CMYK", (8, 8)), "jpg", "9.jpg: has the colour mode CMYK.*RGB and L")
    with_last(Image.new("P", (8, 8)), "png", "9.png: has the colour mode P")
    with_last(Image.new("RGBA", (8, 8)), "png", "9.png: has the colour mode RGBA")
    refused(tmp_path, "0.png: has the colour mode RGB, allowed are 8-bit L", "images", folder,
            channels=1)  # fmt: skip


def test_sixteen_bit_rgb_which_the_library_would_silently_halve(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + b"\x12\x34" * 24 for _ in range(8)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    folder = formats.write_folder(tmp_path / "i", {"a.png": png, "b.png": png})
    refused(tmp_path, "a.png: has 16 bits a channel, allowed are 8", "images", folder)
    refused(tmp_path, "16 bits", "imagenet",
            formats.write_folder(tmp_path / "n", {"n01440764/a.png": png}), size=8)  # fmt: skip


def test_a_text_file_named_png_and_an_empty_folder(tmp_path):
    folder = formats.write_folder(tmp_path / "i", {"a.png": b"hello"})
    refused(tmp_path, "a.png: is not a whole", "images", folder)
    (folder / "a.png").unlink()
    refused(tmp_path, "holds no image file", "images", folder)


def test_imagenet_is_never_downloaded(tmp_path):
    for path in (None, tmp_path / "nowhere"):
        refused(tmp_path, "never downloaded.*image-net.org", "imagenet", path, size=64)
        refused(tmp_path, "never downloaded.*unzip", "imagenet64", path)
        refused(tmp_path, "never downloaded", "tiny-imagenet", path)
    files = {"n01440764/a.png": formats.encoded(formats.pictures(1)[0])}
    refused(tmp_path, "dataset.size: is missing", "imagenet",
            formats.write_folder(tmp_path / "i", files))  # fmt: skip


def test_pickled_imagenet_batches_are_named(tmp_path):
    folder = formats.write_folder(tmp_path / "i", {"train_data_batch_1": b""})
    refused(tmp_path, "only pickled batches; take the npz", "imagenet64", folder)


def test_keys_that_the_source_does_not_take(tmp_path):
    np.save(tmp_path / "x.npy", formats.pictures(4))
    refused(
        tmp_path, "dataset.size = 64.*'npz' does not take it", "npz", tmp_path / "x.npy", size=64
    )
    refused(tmp_path, "dataset.vae", "npz", tmp_path / "x.npy", vae="v")
    refused(tmp_path, "holdout = 3: leaves 1 of 4", "npz", tmp_path / "x.npy", holdout=3)


def test_a_path_that_would_be_ignored(tmp_path):
    refused(tmp_path, "the source 'digits' reads no file", "digits", tmp_path / "x.npy")


def test_labels_that_do_not_fit(tmp_path):
    np.savez(tmp_path / "x.npz", images=formats.pictures(4), labels=np.zeros(4))
    refused(tmp_path, "labels are float64", "npz", tmp_path / "x.npz")
    tar = formats.write_tar(tmp_path / "x.tar", {**images(2), "0.cls": b"cat", "1.cls": b"1"})
    refused(tmp_path, "0.cls: must hold one integer", "webdataset", tar)
    tar = formats.write_tar(tmp_path / "x.tar", {**images(2), "1.cls": b"1"})
    refused(tmp_path, "0.png: has no label", "webdataset", tar)
    path = formats.write_zip(tmp_path / "e.zip", {**images(2), "dataset.json": b'{"labels": [3]}'})
    refused(tmp_path, "dataset.json: must hold labels", "edm2", path)


def test_a_full_disk_is_found_before_anything_is_read(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", formats.pictures(4))

    def full(descriptor, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    refused(tmp_path, "No space left on device.*GB are needed", "npz", tmp_path / "x.npy")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a small disk")
def test_a_disk_that_is_really_full(tmp_path):
    np.save(tmp_path / "x.npy", formats.pictures(3000, 32))  # 9 MB for a disk of 4 MB
    (tmp_path / "disk").mkdir()
    script = tmp_path / "fill.py"
    script.write_text(
        "import sys\n"
        "from jstar.config import DatasetConfig\n"
        "from jstar.data import prepare\n"
        "prepare(DatasetConfig(name='toy', source='npz', path=sys.argv[1]), sys.argv[2])\n"
    )
    shell = (
        'mount -t tmpfs -o size=4m none "$1/disk" || exit 77; '
        '"$0" "$1/fill.py" "$1/x.npy" "$1/disk/out"; ls -A "$1/disk"'
    )
    found = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell, sys.executable, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if found.returncode == 77 or "unshare" in found.stderr:
        pytest.skip(f"no small disk can be mounted here: {found.stderr.strip()}")
    assert "No space left on device" in found.stderr
    assert "0.00924 GB are needed" in found.stderr
    assert found.stdout == ""


def test_two_at_once_do_not_mix(tmp_path):
    np.save(tmp_path / "x.npy", formats.pictures(4))
    out = tmp_path / "out"
    (out / "partial").mkdir(parents=True)
    hold = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npy"))
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(out / "partial" / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        with pytest.raises(JstarError, match="another 'jstar prepare' is writing"):
            prepare(made, out)
        other.stdin.close()
    assert (out / "partial").is_dir()
    assert prepare(made, out).count == 4
