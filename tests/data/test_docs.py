"""docs/data.md: every study it shows is tried on files made as its row says."""

import re

import formats
import numpy as np
import pytest
import yaml
from conftest import ROOT

from jstar.config import SOURCES, Study
from jstar.data import open_dataset, prepare
from jstar.data.check import check_study
from jstar.data.reading import read_sample

TEXT = (ROOT / "docs/data.md").read_text()
SHOWN = [yaml.safe_load(found) for found in re.findall(r"`(dataset: \{.*?\})`", TEXT)]
SHOWN += [yaml.safe_load(found) for found in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
COUNT = 12
LABELS = np.arange(COUNT) % 3


def pictures(side=8):
    return formats.pictures(COUNT, side)


def folders(side=8, names=("a", "b", "c"), end="png"):
    """Files of class folders, in the order of LABELS."""
    return {
        f"{names[LABELS[n]]}/{n}.{end}": formats.encoded(image)
        for n, image in enumerate(pictures(side))
    }


def shards(path, mode, end):
    path.mkdir()
    for part in range(2):
        rows = range(part * 6, part * 6 + 6)
        files = {f"{n}.png": formats.encoded(pictures()[n]) for n in rows}
        files |= {f"{n}.cls": str(LABELS[n]).encode() for n in rows}
        formats.write_tar(path / f"{part}{end}", files, mode)


def original_tar(path):
    inner = {}
    for name, data in folders(256, formats.WNIDS).items():
        inner.setdefault(name.split("/")[0], {})[name.split("/")[1]] = data
    formats.write_tar(path, {f"{w}.tar": formats.tar_bytes(files) for w, files in inner.items()})


def parquet_files(path, column="label"):
    files = {str(n): formats.encoded(image) for n, image in enumerate(pictures())}
    formats.write_parquet(path, files, LABELS)
    if column != "label":
        import pyarrow.parquet as parquet

        table = parquet.read_table(path).rename_columns(["img", column])
        parquet.write_table(table.append_column("coarse_label", table[column]), path)


def cifar100(path):
    path.mkdir()
    parquet_files(path / "train-00000-of-00001.parquet", "fine_label")
    parquet_files(path / "test-00000-of-00001.parquet", "fine_label")


def saved(path):
    for split in ("train", "test"):
        formats.write_saved(path / split, pictures(), LABELS)


def edm(path):
    files = {f"00000/img{n:08d}.png": formats.encoded(p) for n, p in enumerate(pictures())}
    formats.write_edm2(path, files, LABELS)


def tiny(path):
    files = folders(64, formats.WNIDS, "JPEG")
    formats.write_zip(path, {f"tiny-imagenet-200/train/{n.replace('/', '/images/')}": data
                             for n, data in files.items()})  # fmt: skip


def latents():
    return np.random.default_rng(0).standard_normal((COUNT, 4, 4, 4)).astype(np.float32)


def lightning(path):
    formats.write_lightningdit(
        path, latents(), latents()[..., ::-1].copy(), LABELS, [0.0] * 4, [1.0] * 4
    )


# What the files are, by the path of the study.
WRITERS = {
    "data/faces": lambda path: formats.write_folder(path, folders()),
    "data/faces.zip": lambda path: formats.write_zip(path, folders()),
    "data/img64.zip": edm,
    "data/ILSVRC2012_img_train.tar": original_tar,
    "data/Imagenet64_train": lambda path: formats.write_downsampled(path, pictures(64), LABELS, 10),
    "data/tiny-imagenet-200.zip": tiny,
    "data/cifar-10-python.tar.gz": lambda path: formats.write_tar(
        path, formats.cifar_batches(pictures(32), LABELS, "python"), "w:gz"
    ),
    "data/mnist": lambda path: formats.write_idx(path, pictures(28)[..., 0], LABELS),
    "data/birds.parquet": parquet_files,
    "data/birds": saved,
    "data/cifar100": cifar100,
    "data/shards": lambda path: shards(path, "w", ".tar"),
    "data/packed": lambda path: shards(path, "w:gz", ".tar.gz"),
    "data/mine.npz": lambda path: np.savez(path, images=pictures(), labels=LABELS),
    "data/samples_8x64x64x3.npz": lambda path: np.savez(path, pictures(), LABELS),
    "data/img512-sd.zip": lambda path: formats.write_zip(
        path, formats.moment_files(latents(), 0 * latents() + 0.1, LABELS)
    ),
    "data/imagenet_256_vae": lambda path: formats.write_repa(
        path, latents(), 0 * latents() + 0.1, LABELS
    ),
    "data/imagenet_train_256": lightning,
    "data/features": lambda path: formats.write_fast_dit(path, latents(), LABELS),
    "data/latents.npz": lambda path: np.savez(path, latents=latents(), labels=LABELS),
}


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown["dataset"]["path"])
def test_what_the_page_shows_is_read(tmp_path, monkeypatch, tiny_study, shown):
    wanted = shown["dataset"]
    if wanted["source"] == "parquet":
        pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    WRITERS[wanted["path"]](tmp_path / wanted["path"])
    tree = tiny_study(train={"batch": 2})
    study = Study.parse(tree | {"dataset": wanted}, "docs/data.md")
    check_study(study)
    said = read_sample(study.dataset).lines()
    card = prepare(study.dataset, tmp_path / "out")
    found = open_dataset(tmp_path / "out").labels_N
    each = 2 if wanted.get("mirror") else 1
    assert (card.count, said[0].endswith(f"read as {wanted['source']}")) == (COUNT * each, True)
    labels = np.repeat(LABELS, each)
    # Folders, and ImageNet's batches by number, are sorted; all else is in the order of the files.
    if wanted["source"] in ("images", "imagenet", "tiny-imagenet"):
        labels = np.sort(labels)
    np.testing.assert_array_equal(found, labels)


def test_the_page_shows_every_source():
    assert {shown["dataset"]["source"] for shown in SHOWN} >= set(SOURCES) - {
        "digits", "fashion-mnist", "imagenet32",
    }  # fmt: skip
    assert {shown["dataset"]["path"] for shown in SHOWN} == set(WRITERS)
