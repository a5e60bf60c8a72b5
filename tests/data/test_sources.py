"""Every format gives the pixels and labels that were written, in the order that is promised."""

import struct
import sys
import zipfile

import formats
import numpy as np
import pytest

from jstar.config import SOURCES, DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.check import image_count, source_shape
from jstar.data.image import Decoding
from jstar.data.sources import READERS
from jstar.errors import JstarError

COUNT = 12


def config(source, path=None, **more):
    return DatasetConfig(
        name="toy", source=source, path=None if path is None else str(path), **more
    )


def check(tmp_path, made, images_NHWC, labels, **card):
    """Prepare and compare with what was written; the glance must have said the same.

    As a large set is read as well: by worker processes.
    """
    count, *shape = source_shape(made)
    found = prepare(made, tmp_path / "out", shard=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[prepare.__module__], "POOL_IMAGES", 0)
        assert prepare(made, tmp_path / "pool", workers=2, shard=5) == found
    data = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(data.images_NCHW, images_NHWC.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels_N, labels)
    if made.source != "cifar10":
        assert (count, *shape) == (len(images_NHWC), *found.shape)
    for key, value in card.items():
        assert getattr(found, key) == value, key
    assert not (tmp_path / "out" / "partial").exists()
    return found


def test_every_source_of_the_study_has_a_reader():
    assert set(READERS) == set(SOURCES)


@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar10(tmp_path, kind, packed):
    images, labels = formats.pictures(COUNT, 32), np.arange(COUNT) % 10
    files = formats.cifar_batches(images, labels, kind)
    if packed:
        path = formats.write_tar(tmp_path / "cifar.tar.gz", files, "w:gz")
    else:
        path = formats.write_folder(tmp_path / "cifar", files)
    check(tmp_path, config("cifar10", path), images, labels, classes=10)


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_and_fashion_mnist(tmp_path, packed):
    images, labels = formats.pictures(COUNT, 28, 1), np.arange(COUNT) % 10
    folder = formats.write_idx(tmp_path / "raw", images[..., 0], labels, packed)
    check(tmp_path, config("fashion-mnist", folder), images, labels)
    file = next(folder.glob("train-images*"))
    check(tmp_path, config("mnist", file), images, labels, license="CC BY-SA 3.0")


@pytest.mark.parametrize("side", [32, 64])
def test_downsampled_imagenet_in_the_order_of_the_batch_numbers(tmp_path, side):
    images, labels = formats.pictures(25, side), np.arange(25) * 40 % 1000
    folder = formats.write_downsampled(tmp_path / "in", images, labels)
    check(tmp_path, config(f"imagenet{side}", folder), images, labels, classes=1000)


def imagenet_tree(images, kind="PNG"):
    """{name: content} in sorted order, and the labels."""
    names = [f"{formats.WNIDS[n % 3]}/{formats.WNIDS[n % 3]}_{n}.JPEG" for n in range(len(images))]
    order = sorted(range(len(names)), key=lambda n: names[n])
    files = {names[n]: formats.encoded(images[n], kind) for n in order}
    return files, images[order], np.array([n % 3 for n in order])


def write_imagenet(tmp_path, kind, files):
    if kind == "folder":
        extra = {"val/n01440764/x.JPEG": b"not read", "train/notes.txt": b"not read"}
        return formats.write_folder(
            tmp_path / "in", {f"train/{n}": d for n, d in files.items()} | extra
        )
    if kind == "zip":
        long = {f"ILSVRC/Data/CLS-LOC/train/{name}": data for name, data in files.items()}
        return formats.write_zip(tmp_path / "in.zip", long, zipfile.ZIP_DEFLATED)
    if kind == "tar":
        return formats.write_tar(tmp_path / "in.tar", files)
    if kind == "tar of tars":
        inner = {}
        for name, data in files.items():
            inner.setdefault(name.split("/")[0], {})[name.split("/")[1]] = data
        tars = {f"{wnid}.tar": formats.tar_bytes(inner[wnid]) for wnid in reversed(formats.WNIDS)}
        return formats.write_tar(tmp_path / "ILSVRC2012_img_train.tar", tars)
    labels = [formats.WNIDS.index(name.split("/")[0]) for name in files]
    (tmp_path / "hf").mkdir()
    formats.write_parquet(tmp_path / "hf" / "train-00000-of-00001.parquet", files, labels)
    formats.write_parquet(tmp_path / "hf" / "validation-00000.parquet", files, labels)
    return tmp_path / "hf"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar of tars", "parquet"])
def test_imagenet_in_every_packing_gives_the_same_distribution(tmp_path, kind):
    images = formats.pictures(COUNT, 16)
    files, sorted_images, labels = imagenet_tree(images)
    path = write_imagenet(tmp_path, kind, files)
    card = check(
        tmp_path, config("imagenet", path, size=16), sorted_images, labels,
        classes=1000 if kind == "parquet" else 3,
    )  # fmt: skip
    plain = formats.write_folder(tmp_path / "plain", files)
    assert card.id == prepare(config("images", plain), tmp_path / "again").id


def test_imagenet_is_cropped_as_adm_and_edm_do(tmp_path):
    from PIL import Image

    photo = np.asarray(
        Image.fromarray(formats.pictures(1, 9)[0]).resize((150, 90), Image.Resampling.BICUBIC)
    )
    # By hand: 150x90 is halved once (90 >= 2*32, 45 < 64), bicubic to 53x32, columns 10..42.
    half = Image.fromarray(photo).resize((75, 45), Image.Resampling.BOX)
    small = np.asarray(half.resize((53, 32), Image.Resampling.BICUBIC))
    data = formats.encoded(photo)
    cropped, _ = Decoding(size=32)(data, "x")
    np.testing.assert_array_equal(cropped, small[:, 10:42].transpose(2, 0, 1))
    # An image of the right size already is not touched.
    square = photo[:64, :64]
    np.testing.assert_array_equal(
        Decoding(size=64)(formats.encoded(square), "x")[0], square.transpose(2, 0, 1)
    )


def test_imagenets_grey_and_cmyk_photographs_become_rgb_and_are_counted(tmp_path):
    from PIL import Image

    files, _, _ = imagenet_tree(formats.pictures(3, 16))
    grey = formats.pictures(1, 16, 1)[0]
    files["n01440764/grey.JPEG"] = formats.encoded(grey)
    stream = formats.io.BytesIO()
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(stream, "JPEG")
    files["n01440764/inks.JPEG"] = stream.getvalue()
    card = prepare(
        config("imagenet", formats.write_folder(tmp_path / "in", files), size=16), tmp_path / "o"
    )
    assert (card.converted, card.count) == (2, 5)
    images = open_dataset(tmp_path / "o").images_NCHW
    np.testing.assert_array_equal(images[0], np.repeat(grey[None, ..., 0], 3, axis=0))
    red, green, blue = (int(v) for v in images[1][:, 8, 8])
    assert red < 40  # cyan ink
    assert min(green, blue) > 150


def test_tiny_imagenet_folder_and_zip(tmp_path):
    images = formats.pictures(COUNT, 64)
    files, sorted_images, labels = imagenet_tree(images)
    tree = {}
    for name, data in files.items():
        wnid, file = name.split("/")
        tree[f"tiny-imagenet-200/train/{wnid}/images/{file}"] = data
    tree["tiny-imagenet-200/val/images/val_0.JPEG"] = b"not read"
    tree["tiny-imagenet-200/wnids.txt"] = b"not read"
    folder = formats.write_folder(tmp_path / "in", tree) / "tiny-imagenet-200"
    check(tmp_path, config("tiny-imagenet", folder), sorted_images, labels)
    archive = formats.write_zip(tmp_path / "in.zip", tree)
    check(tmp_path, config("tiny-imagenet", archive), sorted_images, labels)


def test_any_folder_of_images_grey_or_rgb(tmp_path):
    images = formats.pictures(6, 8, 1)
    files = {f"{'ab'[n // 3]}/{n}.png": formats.encoded(images[n]) for n in range(6)}
    folder = formats.write_folder(tmp_path / "in", files | {"a/.hidden.png": b"", "readme": b""})
    check(tmp_path, config("images", folder, channels=1), images, [0, 0, 0, 1, 1, 1])
    tripled = np.repeat(images, 3, axis=-1)
    check(tmp_path, config("images", folder), tripled, [0, 0, 0, 1, 1, 1], converted=6)


def test_parquet_of_bare_bytes_over_several_row_groups_and_files(tmp_path):
    images, labels = formats.pictures(COUNT, 8), np.arange(COUNT) % 4
    (tmp_path / "in").mkdir()
    for part, rows in enumerate((range(7), range(7, COUNT))):
        files = {str(n): formats.encoded(images[n], "WEBP", lossless=True) for n in rows}
        formats.write_parquet(tmp_path / "in" / f"{part}.parquet", files, labels[list(rows)])
    check(tmp_path, config("parquet", tmp_path / "in"), images, labels, classes=4)


@pytest.mark.parametrize("labelled", [True, False])
def test_webdataset_in_the_order_of_the_tars(tmp_path, labelled):
    images, labels = formats.pictures(COUNT, 8), np.arange(COUNT)[::-1] % 5
    (tmp_path / "in").mkdir()
    for part in range(3):
        files = {}
        for n in range(part * 4, part * 4 + 4):
            key = f"{(n * 7) % 4:06d}"  # keys repeat from tar to tar, and are not sorted
            files[f"{key}.png"] = formats.encoded(images[n])
            if labelled:
                files[f"{key}.cls"] = str(labels[n]).encode()
            files[f"{key}.json"] = b"{}"
        formats.write_tar(tmp_path / "in" / f"{part:03d}.tar", files)
    made = config("webdataset", tmp_path / "in")
    assert image_count(made) is None
    check(tmp_path, made, images, labels if labelled else np.zeros(COUNT))


def test_edm2_images_with_and_without_labels(tmp_path):
    images, labels = formats.pictures(COUNT, 8), np.arange(COUNT)[::-1] % 5
    files = {f"00000/img{n:08d}.png": formats.encoded(images[n]) for n in range(COUNT)}
    path = formats.write_edm2(tmp_path / "edm.zip", files, labels)
    check(tmp_path, config("edm2", path), images, labels, classes=5)
    bare = formats.write_zip(tmp_path / "bare.zip", files)
    check(tmp_path, config("edm2", bare), images, np.zeros(COUNT), classes=1)


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_npz_is_read_in_blocks_from_anywhere(tmp_path, pack, monkeypatch):
    images, labels = formats.pictures(40, 4, 2), np.arange(40)
    pack(tmp_path / "x.npz", images=images, labels=labels)
    check(tmp_path, config("npz", tmp_path / "x.npz"), images, labels)
    np.save(tmp_path / "x.npy", images)
    check(tmp_path, config("npz", tmp_path / "x.npy"), images, np.zeros(40))


def test_the_zip_directory_is_read_as_the_standard_library_reads_it(tmp_path):
    """Also where the directory has 64-bit fields: Python writes those for 65,536 files."""
    from jstar.data.sources.index import ZipIndex

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for n in range(65_600):
            archive.writestr(f"{n % 10}/é{n}.png", str(n), zipfile.ZIP_DEFLATED if n % 2 else None)
        archive.comment = b"a comment"
    index = ZipIndex(tmp_path / "x.zip", lambda name: True)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert index.names == sorted(archive.namelist())
    for at in (0, 1, 777, 65_599):
        assert index.item(at).read() == index.names[at].split("é")[1][:-4].encode()


def test_a_zip_with_64_bit_offsets(tmp_path, monkeypatch):
    from jstar.data.sources.index import ZipIndex

    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    files = {f"{n}.png": bytes([n]) * 150 for n in range(4)}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    index = ZipIndex(tmp_path / "x.zip", lambda name: True)
    assert {index.names[at]: index.item(at).read() for at in range(4)} == files


def test_published_sets_are_known_before_their_files_are_there(tmp_path):
    missing = str(tmp_path / "none")
    assert source_shape(config("imagenet64", missing)) == (1_281_167, 3, 64, 64)
    assert source_shape(config("imagenet", missing, size=512)) == (1_281_167, 3, 512, 512)
    latents = config("imagenet", missing, size=512, vae=missing)
    assert source_shape(latents) == (1_281_167, 4, 64, 64)
    assert source_shape(config("fashion-mnist")) == (60_000, 1, 28, 28)
    assert source_shape(config("cifar10")) == (50_000, 3, 32, 32)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate"])
def test_tiff_images_of_eight_bits_and_one_page(tmp_path, compression):
    images = formats.pictures(6, 8)
    files = {
        f"{'ab'[n // 3]}/{n}.{'tif' if n % 2 else 'TIFF'}": formats.encoded(
            images[n], "TIFF", compression=compression
        )
        for n in range(6)
    }
    folder = formats.write_folder(tmp_path / "in", files)
    check(tmp_path, config("images", folder), images, [0, 0, 0, 1, 1, 1])


def test_a_tiff_of_which_pillow_reads_a_part_is_refused(tmp_path):
    from PIL import Image

    frames = [Image.fromarray(image) for image in formats.pictures(2)]
    stream = formats.io.BytesIO()
    frames[0].save(stream, "TIFF", save_all=True, append_images=frames[1:])
    with pytest.raises(JstarError, match="x: holds 2 pages, allowed is one image a file"):
        Decoding()(stream.getvalue(), "x")
    # 4x1 RGB of 16 bits, which Pillow opens as 8 bits: magic, first directory, tags.
    tags = [(256, 3, 1, 4), (257, 3, 1, 1), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, 240), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 24)]  # fmt: skip
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    data += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    data = data.ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16)
    data = data.ljust(240, b"\0") + bytes(24)
    with Image.open(formats.io.BytesIO(data)) as image:
        assert image.mode == "RGB"
    with pytest.raises(JstarError, match="x: has 16 bits a channel, allowed are 8"):
        Decoding()(data, "x")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(stream := formats.io.BytesIO(), "TIFF")
    with pytest.raises(JstarError, match="has 32 bits a channel|colour mode F"):
        Decoding(convert=True)(stream.getvalue(), "x")


def test_bytes_changed_at_random_are_a_sentence_never_a_traceback():
    rng = np.random.default_rng(0)
    image = formats.pictures(1, 16)[0]
    for kind, options in (("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {}),
                          ("BMP", {}), ("WEBP", {}), ("JPEG", {})):  # fmt: skip
        whole = np.frombuffer(formats.encoded(image, kind, **options), np.uint8)
        refusals = 0
        for _ in range(150):
            data = whole.copy()
            # Half of them in the last bytes, where a TIFF has its directory.
            low = 0 if rng.random() < 0.5 else max(0, len(data) - 250)
            data[rng.integers(low, len(data), 3)] = rng.integers(0, 256, 3, np.uint8)
            try:
                Decoding()(data.tobytes(), "x")
            except JstarError:
                refusals += 1
        assert refusals > 5, kind


def test_adms_samples_have_no_names(tmp_path):
    """image_sample.py: np.savez(path, images), with classes np.savez(path, images, labels)."""
    images, labels = formats.pictures(COUNT, 8), np.arange(COUNT)[::-1] % 5
    np.savez(tmp_path / "a.npz", images)
    check(tmp_path / "a", config("npz", tmp_path / "a.npz"), images, np.zeros(COUNT))
    np.savez(tmp_path / "b.npz", images, labels)
    check(tmp_path / "b", config("npz", tmp_path / "b.npz"), images, labels)
