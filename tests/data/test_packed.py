"""WebDataset shards packed with gzip, as webdataset itself writes and reads them."""

import gzip
import io
import json
import tarfile

import formats
import numpy as np
import pytest
from PIL import Image

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.check import source_shape
from jstar.errors import JstarError

COUNT = 11


def made(path, **more):
    return DatasetConfig(name="toy", source="webdataset", path=str(path), **more)


def samples(labels_in):
    """Images and labels, and the files of each sample in the order of a shard."""
    images, labels = formats.pictures(COUNT), (3 * np.arange(COUNT) + 1) % 4
    files = []
    for n, image in enumerate(images):
        key = f"{(n * 5) % COUNT:06d}"
        mark = str(labels[n]) if labels_in == "cls" else json.dumps({"label": int(labels[n])})
        sample = {f"{key}.png": formats.encoded(image), f"{key}.{labels_in}": mark.encode()}
        # The label stands before its image or behind it.
        files.append(dict(sorted(sample.items(), reverse=bool(n % 2))))
    return images, labels, files


def write_shards(folder, files, suffix=".tar.gz", each=4):
    folder.mkdir()
    for shard in range(0, COUNT, each):
        together = {name: data for sample in files[shard : shard + each]
                    for name, data in sample.items()}  # fmt: skip
        mode = "w:gz" if suffix != ".tar" else "w"
        formats.write_tar(folder / f"{shard:03d}{suffix}", together, mode)
    return folder


@pytest.mark.parametrize("labels_in", ["cls", "json"])
@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz"])
def test_packed_shards_give_the_card_of_plain_ones(tmp_path, labels_in, suffix):
    images, labels, files = samples(labels_in)
    packed = write_shards(tmp_path / "packed", files, suffix)
    card = prepare(made(packed, holdout=2), tmp_path / "out", shard=3)
    plain = write_shards(tmp_path / "plain", files, ".tar")
    assert prepare(made(plain, holdout=2), tmp_path / "again").id == card.id
    kept = np.setdiff1d(np.arange(COUNT), [0, COUNT // 2])
    data = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(data.images_NCHW, images[kept].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels_N, labels[kept])
    assert source_shape(made(packed))[1:] == (3, 8, 8)
    # One of them beside plain ones: the order is that of the names.
    formats.write_tar(packed / "100.tar", {"a.png": formats.encoded(images[0]),
                                           f"a.{labels_in}": b"0" if labels_in == "cls" else
                                           b'{"label": 0}'})  # fmt: skip
    assert prepare(made(packed), tmp_path / "mixed").count == COUNT + 1


def test_worker_processes_and_a_start_in_the_middle_give_the_same(tmp_path, monkeypatch):
    import sys

    images, _, files = samples("cls")
    packed = write_shards(tmp_path / "packed", files)
    alone = prepare(made(packed), tmp_path / "alone", workers=1)
    monkeypatch.setattr(sys.modules[prepare.__module__], "POOL_IMAGES", 0)
    assert prepare(made(packed), tmp_path / "pool", workers=2, shard=2) == alone
    from jstar.data.sources import present

    source = present(made(packed)).open(made(packed))
    rows = np.concatenate([job().images_BCHW for job in source.jobs(5, 10, 3)])
    np.testing.assert_array_equal(rows, images[5:10].transpose(0, 3, 1, 2))


def test_webdataset_reads_and_writes_the_same(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    images, labels, _ = samples("cls")
    pattern = str(tmp_path / "in-%03d.tar.gz")
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0) as shards:
        for n, image in enumerate(images):
            shards.write({"__key__": f"{n:06d}", "png": image, "cls": int(labels[n])})
    card = prepare(made(tmp_path), tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    files = sorted(str(path) for path in tmp_path.glob("*.tar.gz"))
    read = [
        (np.asarray(Image.open(io.BytesIO(sample["png"]))), int(sample["cls"]))
        for sample in webdataset.WebDataset(files, shardshuffle=False)
    ]
    assert (card.count, len(read)) == (COUNT, COUNT)
    np.testing.assert_array_equal(data.images_NCHW.transpose(0, 2, 3, 1), [r[0] for r in read])
    np.testing.assert_array_equal(data.labels_N, [r[1] for r in read])


def refused(tmp_path, match, path, source="webdataset"):
    with pytest.raises(JstarError, match=match) as caught:
        prepare(DatasetConfig(name="toy", source=source, path=str(path)), tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


def test_packed_shards_that_are_damaged_or_unpack_to_too_much(tmp_path):
    images, _, files = samples("cls")
    folder = write_shards(tmp_path / "x", files, each=COUNT)
    path = folder / "000.tar.gz"
    whole = path.read_bytes()
    refused(tmp_path, "unpack it first: gunzip 000.tar.gz", path, "images")
    for data in (whole[:-4], whole[: len(whole) // 2], whole[:20], b"", gzip.compress(b"x" * 999)):
        path.write_bytes(data)
        refused(tmp_path, "000.tar.gz: is damaged or cut short|holds no image", path)
    # A tar cut between two files, packed whole: only its end block tells.
    wrong = bytearray(whole)
    wrong[-6] ^= 1  # the check sum
    path.write_bytes(bytes(wrong))
    refused(tmp_path, "000.tar.gz: is damaged or cut short", path)
    # Beyond the end of the tar, which is where a reader of tars would stop.
    long = bytearray(gzip.compress(gzip.decompress(whole) + bytes(3 << 20)))
    path.write_bytes(bytes(long))
    assert prepare(made(path), tmp_path / "long").count == COUNT
    long[-6] ^= 1
    path.write_bytes(bytes(long))
    refused(tmp_path, "000.tar.gz: is damaged or cut short", path)
    # 64 MB of zeros in 64 kB, called a label.
    with tarfile.open(path, "w:gz") as archive:
        for name, size in (("0.png", 0), ("0.cls", 1 << 26)):
            data = formats.encoded(images[0]) if not size else bytes(size)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    refused(tmp_path, "0.cls: has 67108864 bytes, allowed are 16777216", path)
