"""Hugging Face's files: parquet and save_to_disk, made by `datasets` where it is installed."""

import json

import formats
import numpy as np
import pytest
from formats import cells, write_arrow

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.check import source_shape
from jstar.errors import JstarError

pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
COUNT = 9


def made(path, **more):
    return DatasetConfig(name="toy", source="parquet", path=str(path), **more)


def check(tmp_path, path, images_NHWC, labels, **more):
    """Prepare gives these images and labels, whatever the block, and the glance their shape."""
    config = made(path, **more)
    card = prepare(config, tmp_path / "out", shard=4)
    assert prepare(config, tmp_path / "again") == card
    data = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(data.images_NCHW, images_NHWC.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels_N, labels)
    assert source_shape(config) == (len(images_NHWC), *card.shape)
    return card


def refused(tmp_path, match, path, **more):
    with pytest.raises(JstarError, match=match) as caught:
        prepare(made(path, **more), tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


@pytest.fixture
def images():
    return formats.pictures(COUNT)


@pytest.fixture
def labels():
    return (5 * np.arange(COUNT) + 2) % 4


def test_what_save_to_disk_of_datasets_wrote(tmp_path, images, labels):
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    from PIL import Image

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))}
    )
    columns = {"image": [Image.fromarray(image) for image in images], "label": labels.tolist()}
    whole = datasets.Dataset.from_dict(columns, features=features)
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    card = check(tmp_path, tmp_path / "one", images, labels)
    assert card.classes == 4
    parts = {"train": whole, "test": whole.select(range(2))}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "dict")
    refused(tmp_path, "holds the splits test, train; dataset.split says", tmp_path / "dict")
    assert check(tmp_path, tmp_path / "dict", images, labels, split="train").id == card.id
    whole.filter(lambda row: row["label"] > 0).save_to_disk(tmp_path / "some")
    check(tmp_path, tmp_path / "some", images[labels > 0], labels[labels > 0])
    # Arrays of numbers, as lists and as the extension type of `datasets`.
    for kind in (None, datasets.Array3D((8, 8, 3), "uint8")):
        columns = {"pixel_values": list(images), "labels": labels.tolist()}
        types = {"labels": datasets.Value("int64"), "pixel_values": kind}
        features = None if kind is None else datasets.Features(types)
        arrays = datasets.Dataset.from_dict(columns, features=features)
        if kind is None:
            narrow = datasets.Sequence(
                datasets.Sequence(datasets.Sequence(datasets.Value("uint8")))
            )
            arrays = arrays.cast_column("pixel_values", narrow)
        arrays.to_parquet(tmp_path / "x.parquet")
        assert check(tmp_path, tmp_path / "x.parquet", images, labels).id == card.id


def test_a_saved_set_in_the_order_of_its_state(tmp_path, images, labels):
    folder = formats.write_saved(tmp_path / "in", images, labels)
    write_arrow(folder / "cache-12345.arrow", {"image": cells(images[:1]), "label": [0]})
    card = check(tmp_path, folder, images, labels)
    assert dict(card.left_out) == {"cache-*.arrow": 1}
    alone = check(tmp_path, folder / "data-00000-of-00002.arrow", images[:5], labels[:5])
    assert alone.id != card.id
    state = json.loads((folder / "state.json").read_text())
    backwards = {"_data_files": state["_data_files"][::-1]}
    (folder / "state.json").write_text(json.dumps(state | backwards))
    order = [*range(5, COUNT), *range(5)]
    check(tmp_path, folder, images[order], labels[order])
    for match, changed in (
        ("its set is a selection of rows", {"_indices_data_files": [{"filename": "i.arrow"}]}),
        (
            "names the file 'gone.arrow', which is not",
            {"_data_files": [{"filename": "gone.arrow"}]},
        ),
        (
            "names the file '../x.arrow', which is not",
            {"_data_files": [{"filename": "../x.arrow"}]},
        ),
        ("is not the state.json of save_to_disk", {"_data_files": None}),
    ):
        (folder / "state.json").write_text(json.dumps(state | changed))
        refused(tmp_path, match, folder)
    (folder / "state.json").unlink()
    formats.write_parquet(folder / "x.parquet", {"a": formats.encoded(images[0])}, [0])
    refused(tmp_path, "holds .parquet and .arrow files; dataset.path may name one", folder)


@pytest.mark.parametrize("column", ["image", "img", "jpg", "png", "webp", "pixel_values"])
def test_image_files_in_the_columns_of_common_names(tmp_path, images, labels, column):
    import pyarrow.parquet as parquet

    for bare in (True, False):
        files = [cell["bytes"] if bare else cell for cell in cells(images)]
        table = pyarrow.table({column: files, "cls": labels})
        parquet.write_table(table, tmp_path / "x.parquet", row_group_size=4)
        check(tmp_path, tmp_path / "x.parquet", images, labels)


def test_pixels_as_numbers_in_either_order_of_axes(tmp_path, images, labels):
    uint8 = pyarrow.uint8()
    colour = pyarrow.list_(pyarrow.list_(pyarrow.list_(uint8)))
    values = {
        "rows first": (images, colour, images, {}),
        "channels first": (images.transpose(0, 3, 1, 2), colour, images, {}),
        "grey": (images[..., 0], pyarrow.list_(pyarrow.list_(uint8)), images[..., :1],
                 {"channels": 1}),
        "fixed": (images, pyarrow.list_(pyarrow.list_(pyarrow.list_(uint8, 3), 8), 8), images, {}),
    }  # fmt: skip
    for name, (array, kind, expected, keys) in values.items():
        column = pyarrow.array(array.tolist(), kind)
        path = write_arrow(tmp_path / f"{name}.arrow", {"pixel_values": column, "label": labels})
        check(tmp_path, path, expected, labels, **keys)
    refused(tmp_path, "holds pixels of 1 channel.*dataset.channels: 1", tmp_path / "grey.arrow")
    refused(tmp_path, "not converted or cropped", tmp_path / "fixed.arrow", size=4)


def test_pixels_that_are_no_images(tmp_path, images):
    def refused_cells(match, cells, kind):
        nested = pyarrow.list_(pyarrow.list_(pyarrow.list_(kind)))
        path = write_arrow(tmp_path / "x.arrow", {"pixel_values": pyarrow.array(cells, nested)})
        refused(tmp_path, match, path)

    narrow = images.tolist()
    refused_cells("'pixel_values' holds list.*float.*of shape .8, 8, 3., allowed are image files",
                  (images / 255).tolist(), pyarrow.float32())  # fmt: skip
    refused_cells("differ in shape", [narrow[0], [row[:4] for row in narrow[1]]], pyarrow.uint8())
    refused_cells("differ in shape", [[], []], pyarrow.uint8())
    refused_cells("differ in shape", [narrow[0], None], pyarrow.uint8())
    refused_cells("of shape .3, 8, 3.", images[:, :3].tolist(), pyarrow.uint8())
    # In a later batch, another shape than the first image has.
    later = narrow[:4] + images[:4, :4].tolist()
    refused_cells(r"images have shape \(3, 4, 8\), the first image has \(3, 8, 8\)", later,
                  pyarrow.uint8())  # fmt: skip


def test_damaged_arrow_files(tmp_path, images, labels):
    path = write_arrow(tmp_path / "x.arrow", {"image": cells(images), "label": labels})
    whole = path.read_bytes()
    refusals = 0
    for data in (b"", b"ARROW1", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(data)
        refused(tmp_path, "x.arrow: is (not an Arrow stream file|damaged)", path)
    rng = np.random.default_rng(0)
    for _ in range(20):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, len(data), 4)] ^= 255
        path.write_bytes(data.tobytes())
        try:
            prepare(made(path), tmp_path / "damaged", workers=1)
        except JstarError:
            refusals += 1
    assert refusals > 3


def test_a_cell_that_points_beyond_its_file(tmp_path, images, labels):
    path = write_arrow(tmp_path / "x.arrow", {"image": cells(images), "label": labels})
    whole = path.read_bytes()
    ends = np.cumsum([0, *(len(cell["bytes"]) for cell in cells(images)[:4])]).astype("<i4")
    assert ends.tobytes() in whole  # where the files of the first batch end
    for wrong in (2**31 - 1, -5, 0):
        ends_there = ends.copy()
        ends_there[2] = wrong
        path.write_bytes(whole.replace(ends.tobytes(), ends_there.tobytes(), 1))
        refused(tmp_path, "x.arrow: is damaged or cut short", path)
