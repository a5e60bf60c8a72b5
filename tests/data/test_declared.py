"""Labels and splits: read where the files state them, else refused with the key that decides."""

import json

import formats
import numpy as np
import pytest

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.errors import JstarError

COUNT = 12


def read(tmp_path, source, path, **more):
    """Card and labels of what prepare makes of it."""
    made = DatasetConfig(name="toy", source=source, path=str(path), **more)
    card = prepare(made, tmp_path / "out")
    return card, open_dataset(tmp_path / "out").labels_N.tolist()


def refused(tmp_path, match, source, path, **more):
    made = DatasetConfig(name="toy", source=source, path=str(path), **more)
    with pytest.raises(JstarError, match=match) as caught:
        prepare(made, tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


def images(names):
    """{name: a different PNG}."""
    pixels = formats.pictures(len(names))
    return {name: formats.encoded(image) for name, image in zip(names, pixels, strict=True)}


# --- dataset.json ---------------------------------------------------------------------------------


def edm(folder="", count=COUNT, classes=5):
    """Files of an EDM dataset in chunks of three images, and their labels, which are not sorted."""
    files = images([f"{n // 3:05d}/img{n:08d}.png" for n in range(count)])
    labels = [(7 * n + 3) % classes for n in range(count)]
    index = {"labels": [[name, label] for name, label in zip(files, labels, strict=True)][::-1]}
    files = {**files, "dataset.json": json.dumps(index).encode()}
    return {folder + name: data for name, data in files.items()}, labels


@pytest.mark.parametrize("source", ["images", "edm2"])
@pytest.mark.parametrize("wrapped", ["", "my-set/"])
def test_edms_labels_are_read_from_zip_tar_and_folder(tmp_path, source, wrapped):
    files, labels = edm(wrapped)
    for path in (
        formats.write_zip(tmp_path / "x.zip", files),
        formats.write_tar(tmp_path / "x.tar", files),
        formats.write_folder(tmp_path / "x", files),
    ):
        card, found = read(tmp_path, source, path)
        assert (found, card.classes) == (labels, 5)


def test_edms_null_labels_are_no_classes_and_the_key_decides(tmp_path):
    files, _ = edm()
    path = formats.write_folder(tmp_path / "x", files)
    chunks = [n // 3 for n in range(COUNT)]
    assert read(tmp_path, "images", path, labels="folder")[1] == chunks
    assert read(tmp_path, "images", path, labels="none")[1] == [0] * COUNT
    (path / "dataset.json").write_text('{"labels": null}')
    card, found = read(tmp_path, "images", path)
    assert (found, card.classes) == ([0] * COUNT, 1)
    (path / "dataset.json").unlink()
    refused(tmp_path, "dataset.labels says it: folder or none", "images", path)
    refused(tmp_path, "holds no dataset.json", "images", path, labels="json")
    assert read(tmp_path, "images", path, labels="folder")[1] == chunks


def test_a_dataset_json_that_does_not_fit_the_images(tmp_path):
    files, labels = edm()
    names = [name for name in files if name.endswith("png")]
    pairs = list(zip(names, labels, strict=True))

    def match(said, stated):
        files["dataset.json"] = json.dumps({"labels": stated}).encode()
        refused(tmp_path, said, "images", formats.write_zip(tmp_path / "x.zip", files))

    match("has no label of '00003/img00000011.png'", pairs[:-1])
    match("states 13 labels, there are 12 images; 'gone.tif'", [*pairs, ("gone.tif", 1)])
    match("states 13 labels", [*pairs, pairs[0]])
    match("'00000/img00000000.png' is 1.5, allowed are integers", [(names[0], 1.5), *pairs[1:]])
    match("'00000/img00000000.png' is -1, allowed", [(names[0], -1), *pairs[1:]])
    match("is True, allowed", [(names[0], True), *pairs[1:]])
    match(f"holds the label {2**64}", [(names[0], 2**64), *pairs[1:]])
    match("must hold labels as .name, class. pairs", dict(pairs))
    match("must hold labels as .name, class. pairs", [[1, 2]])
    files["dataset.json"] = b'{"name": "another tool"}'
    refused(tmp_path, "dataset.labels says where they are: folder or none", "images",
            formats.write_zip(tmp_path / "x.zip", files))  # fmt: skip
    files["b/dataset.json"] = files["dataset.json"]
    refused(tmp_path, "holds several dataset.json .b/dataset.json, dataset.json.", "images",
            formats.write_folder(tmp_path / "two", files))  # fmt: skip


# --- folders --------------------------------------------------------------------------------------


def test_nested_class_folders(tmp_path):
    files = images(["a/x/1.png", "a/y/2.png", "b/x/3.png", "b/x/4.png"])
    path = formats.write_folder(tmp_path / "x", files)
    refused(tmp_path, "inside folders, as 'a/x'; dataset.nested .* top .2 classes. or leaf .3.",
            "images", path)  # fmt: skip
    assert read(tmp_path, "images", path, nested="top")[1] == [0, 0, 1, 1]
    assert read(tmp_path, "images", path, nested="leaf")[1] == [0, 1, 2, 2]
    assert read(tmp_path, "images", path, labels="none")[1] == [0, 0, 0, 0]
    # One folder in each class folder is one reading only, and so is one around all of them.
    for plain in (["a/x/1.png", "b/x/2.png", "b/x/3.png"], ["w/a/1.png", "w/b/2.png", "w/b/3.png"]):
        path = formats.write_zip(tmp_path / "plain.zip", images(plain))
        assert read(tmp_path, "images", path)[1] == [0, 1, 1]


def test_images_beside_class_folders(tmp_path):
    path = formats.write_folder(tmp_path / "x", images(["0.png", "a/1.png", "b/2.png", "b/3.png"]))
    refused(tmp_path, "holds '0.png' beside folders", "images", path)
    assert read(tmp_path, "images", path, labels="none")[1] == [0] * 4
    assert read(tmp_path, "images", path, labels="folder")[1] == [0, 1, 2, 2]


@pytest.mark.parametrize("inside", [False, True])
def test_splits_of_a_folder(tmp_path, inside):
    """train/a/1.png, and a/train/1.png."""
    names = [("train", "a"), ("train", "b"), ("val", "a"), ("val", "b"), ("train", "b")]
    parts = [reversed(pair) if inside else pair for pair in names]
    files = images([f"{'/'.join(pair)}/{n}.png" for n, pair in enumerate(parts)])
    path = formats.write_folder(tmp_path / "x", files)
    refused(tmp_path, "the splits train, validation; dataset.split", "images", path)
    card, labels = read(tmp_path, "images", path, split="train")
    assert (labels, card.classes) == ([0, 1, 1], 2)
    assert read(tmp_path, "images", path, split="validation")[1] == [0, 1]
    refused(tmp_path, "split = test: .* found are train, validation", "images", path, split="test")
    refused(tmp_path, "split = all: .* found are", "images", path, split="all")


def test_a_class_named_train_is_no_split(tmp_path):
    path = formats.write_folder(tmp_path / "x", images(["bus/1.png", "train/2.png", "car/3.png"]))
    assert read(tmp_path, "images", path)[1] == [0, 1, 2]


@pytest.mark.parametrize("packed", [True, False])
def test_hidden_folders_and_other_suffixes_are_left_out_and_counted(tmp_path, packed):
    files = images(
        ["a/1.png", "b/2.png", "b/3.png", "a/.ipynb_checkpoints/1.png", "__MACOSX/x.png"]
    )
    files |= {"a/4.gif": b"", "a/5.GIF": b"", "b/6.avif": b"", "b/.7.png": b"", "README": b""}
    if packed:
        path = formats.write_zip(tmp_path / "x.zip", files)
    else:
        path = formats.write_folder(tmp_path / "x", files)
    card, labels = read(tmp_path, "images", path)
    assert labels == [0, 1, 1]
    assert dict(card.left_out) == {"": 1, ".avif": 1, ".gif": 2, "hidden": 3}


def test_a_link_to_a_folder_that_is_read_already(tmp_path):
    path = formats.write_folder(tmp_path / "up" / "x", images(["a/1.png", "b/2.png", "b/3.png"]))
    formats.write_folder(tmp_path / "else", images(["4.png"]))
    (path / "0").symlink_to(path)  # itself
    (path / "a" / "up").symlink_to(tmp_path / "up")  # above it
    (path / "aa").symlink_to(path / "b")  # another, which keeps its own name
    (path / "c").symlink_to(tmp_path / "else")  # a class
    card, labels = read(tmp_path, "images", path)
    assert labels == [0, 1, 1, 2]
    assert dict(card.left_out) == {"a link to a folder already read": 3}


# --- parquet --------------------------------------------------------------------------------------


def table(path, **columns):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), path, row_group_size=2)
    return path


def cells(count=4, seed=0):
    pixels = formats.pictures(count, seed=seed)
    return [{"bytes": formats.encoded(image), "path": None} for image in pixels]


@pytest.mark.parametrize("names", [("train/0000", "test/0000"), ("train-0", "test-0"),
                                   ("my-set-train", "my-set-val")])  # fmt: skip
def test_splits_of_parquet_files(tmp_path, names):
    for n, name in enumerate(names):
        table(tmp_path / "x" / f"{name}.parquet", image=cells(seed=n), label=[n, n, n, n + 1])
    refused(tmp_path, "holds the splits .*train.*dataset.split", "parquet", tmp_path / "x")
    assert read(tmp_path, "parquet", tmp_path / "x", split="train")[1] == [0, 0, 0, 1]
    other = "val" if "val" in names[1] else "test"
    assert read(tmp_path, "parquet", tmp_path / "x", split=other)[1] == [1, 1, 1, 2]
    only = tmp_path / "x" / names[1]
    assert read(tmp_path, "parquet", only.with_suffix(".parquet"))[1] == [1, 1, 1, 2]


def test_cifar100s_two_label_columns(tmp_path):
    path = table(
        tmp_path / "x.parquet", img=cells(), fine_label=[7, 8, 9, 7], coarse_label=[1, 0, 0, 1]
    )
    refused(tmp_path, "columns fine_label, coarse_label; dataset.label_column", "parquet", path)
    card, labels = read(tmp_path, "parquet", path, label_column="fine_label")
    assert (labels, card.classes) == ([7, 8, 9, 7], 10)
    assert read(tmp_path, "parquet", path, label_column="coarse_label")[1] == [1, 0, 0, 1]
    card, labels = read(tmp_path, "parquet", path, labels="none")
    assert (labels, card.classes) == ([0] * 4, 1)
    refused(tmp_path, "label_column = x: .* found are img, fine_label", "parquet", path,
            label_column="x")  # fmt: skip


def test_other_columns_of_parquet(tmp_path):
    path = table(tmp_path / "a.parquet", image=cells(), label=[3, 0, 1, 2], label_name=list("abcd"))
    assert read(tmp_path, "parquet", path)[1] == [3, 0, 1, 2]
    path = table(tmp_path / "b.parquet", image=cells(), label=list("abcd"))
    refused(tmp_path, "'label' must hold integers.*dataset.labels: none", "parquet", path)
    path = table(tmp_path / "c.parquet", image=cells(), label=[-1] * 4)
    refused(tmp_path, "holds -1, allowed are classes from 0 on", "parquet", path)
    assert read(tmp_path, "parquet", path, labels="none")[1] == [0] * 4
    path = table(tmp_path / "d.parquet", image=cells(), jpg=cells(seed=1))
    refused(tmp_path, "columns image, jpg; dataset.image_column", "parquet", path)
    first = read(tmp_path, "parquet", path, image_column="image")[0]
    assert first.id != read(tmp_path, "parquet", path, image_column="jpg")[0].id
    refused(tmp_path, "labels = column: .*found are image, jpg", "parquet", path,
            image_column="image", labels="column")  # fmt: skip


# --- webdataset -----------------------------------------------------------------------------------


def shard(tmp_path, files):
    return formats.write_tar(tmp_path / "x.tar", files)


def test_webdataset_labels_in_json(tmp_path):
    files = {}
    for n, (name, data) in enumerate(images([f"{n:03d}.png" for n in range(4)]).items()):
        facts = {"label": 3 - n, "label_name": "x", "width": 8}
        files |= {name: data, f"{n:03d}.json": json.dumps(facts).encode()}
    assert read(tmp_path, "webdataset", shard(tmp_path, files))[1] == [3, 2, 1, 0]
    assert read(tmp_path, "webdataset", shard(tmp_path, files), labels="none")[1] == [0] * 4
    width = read(tmp_path, "webdataset", shard(tmp_path, files), label_column="width")
    assert width[1] == [8] * 4
    refused(tmp_path, "its field 'no' is None", "webdataset", tmp_path / "x.tar", label_column="no")
    del files["000.json"]
    refused(tmp_path, "000.png: has no label beside it ..json", "webdataset",
            shard(tmp_path, files))  # fmt: skip
    files = {"000.json": b"{}", **files}  # the first says nothing, the others do
    refused(tmp_path, "its field 'label' is None", "webdataset", shard(tmp_path, files))
    files["000.json"] = b'{"fine_label": 1, "coarse_label": 2}'
    refused(tmp_path, "fields fine_label, coarse_label; dataset.label_column", "webdataset",
            shard(tmp_path, files))  # fmt: skip
    files["000.json"] = b'{"label": "cat"}'
    refused(tmp_path, "'label' is 'cat', a class is an integer", "webdataset",
            shard(tmp_path, files))  # fmt: skip
    files["000.json"] = b'{"label": -1}'
    refused(tmp_path, "holds the label -1", "webdataset", shard(tmp_path, files))


def test_webdataset_labels_of_other_keys_than_the_images(tmp_path):
    files = images(["a.png", "b.png"]) | {"c.cls": b"1", "d.cls": b"0"}
    refused(tmp_path, "a.png: has no label beside it ..cls", "webdataset", shard(tmp_path, files))


def dotted(count=4):
    """Images 22.00.png, 22.25.png ... with their labels."""
    files = {}
    for n, (name, data) in enumerate(
        images([f"22.{25 * n:02d}.png" for n in range(count)]).items()
    ):
        files |= {name: data, name.replace("png", "cls"): str(count - n).encode()}
    return files


def test_webdataset_keys_with_dots(tmp_path):
    refused(tmp_path, "22.00.png: and '22.25.png' are images of one sample.*extension: png",
            "webdataset", shard(tmp_path, dotted()))  # fmt: skip
    found = read(tmp_path, "webdataset", tmp_path / "x.tar", extension="png")
    assert found[1] == [4, 3, 2, 1]
    refused(tmp_path, "extension = jpg: no image", "webdataset", tmp_path / "x.tar",
            extension="jpg")  # fmt: skip
    mixed = dotted() | images(["23.png"]) | {"23.cls": b"7"}
    refused(tmp_path, "has a dot in its key, others have none", "webdataset",
            shard(tmp_path, mixed), extension="png")  # fmt: skip


def test_webdataset_samples_of_an_image_and_its_mask(tmp_path):
    files = images(["1.png", "1.seg.png", "2.png", "2.seg.png"])
    files |= {"1.cls": b"1", "2.cls": b"0"}
    path = shard(tmp_path, files)
    refused(tmp_path, "1.png: and '1.seg.png' are images of one sample", "webdataset", path)
    plain, labels = read(tmp_path, "webdataset", path, extension="png")
    assert labels == [1, 0]
    mask, labels = read(tmp_path, "webdataset", path, extension="seg.png")
    assert labels == [1, 0]
    assert plain.images_sha256 != mask.images_sha256


def test_webdataset_as_its_own_package_reads_it(tmp_path):
    maker = pytest.importorskip("webdataset")
    pixels = formats.pictures(6)
    with maker.TarWriter(str(tmp_path / "x.tar")) as writer:
        for n, image in enumerate(pixels):
            writer.write({"__key__": f"{n:04d}", "png": image, "json": {"label": n % 3}})
    theirs = maker.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False).decode("rgb8")
    expected = [(sample["png"], sample["json"]["label"]) for sample in theirs]
    _, labels = read(tmp_path, "webdataset", tmp_path / "x.tar")
    assert labels == [label for _, label in expected]
    found = open_dataset(tmp_path / "out").images_NCHW.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found, [image for image, _ in expected])


def test_splits_of_webdataset_tars(tmp_path):
    for n, name in enumerate(("in1k-train-0000", "in1k-validation-0000")):
        files = images(["a.png", "b.png"]) | {"a.cls": str(n).encode(), "b.cls": b"5"}
        (tmp_path / "x").mkdir(exist_ok=True)
        formats.write_tar(tmp_path / "x" / f"{name}.tar", files)
    refused(tmp_path, "the splits train, validation; dataset.split", "webdataset", tmp_path / "x")
    assert read(tmp_path, "webdataset", tmp_path / "x", split="val")[1] == [1, 5]


# --- keys -----------------------------------------------------------------------------------------


def test_keys_that_a_source_does_not_take(tmp_path):
    path = formats.write_folder(tmp_path / "x", images(["a/1.png", "b/2.png"]))
    refused(tmp_path, "labels = column: the source 'images' does not .* folder, json, none",
            "images", path, labels="column")  # fmt: skip
    refused(tmp_path, "extension = png: .* allowed with webdataset", "images", path,
            extension="png")  # fmt: skip
