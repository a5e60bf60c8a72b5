"""Arrays, torch Datasets and DataLoaders of a Python program, written for the source npz."""

import formats
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare, save_images
from jstar.errors import JstarError

COUNT = 10
IMAGES, LABELS = formats.pictures(COUNT), (3 * np.arange(COUNT) + 1) % 4


class Pictures(Dataset):
    """As torchvision's: without a transform PIL images, with ToTensor floats k/255."""

    def __init__(self, transform=None):
        self.transform = transform

    def __len__(self):
        return COUNT

    def __getitem__(self, at):
        if not 0 <= at < COUNT:
            raise AssertionError("asked beyond its end")
        image = Image.fromarray(IMAGES[at])
        return (self.transform(image) if self.transform else image), int(LABELS[at])


class Stream(IterableDataset):
    def __iter__(self):
        return ((to_tensor(Image.fromarray(image)), int(label))
                for image, label in zip(IMAGES, LABELS, strict=True))  # fmt: skip


def to_tensor(image):
    """torchvision.transforms.functional.to_tensor, which is not installed here."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div(255)


def pil_to_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


SOURCES = {
    "array": lambda: (IMAGES, LABELS),
    "tensor": lambda: (torch.from_numpy(IMAGES).permute(0, 3, 1, 2), torch.from_numpy(LABELS)),
    "list of pairs": lambda: (list(zip(IMAGES, LABELS, strict=True)), None),
    "Dataset of PIL images": lambda: (Pictures(), None),
    "Dataset of tensors": lambda: (Pictures(pil_to_tensor), None),
    "Dataset of floats": lambda: (Pictures(to_tensor), None),
    "DataLoader": lambda: (DataLoader(Pictures(to_tensor), batch_size=4), None),
    "DataLoader of single images": lambda: (DataLoader(Pictures(to_tensor), batch_size=None), None),
    "stream": lambda: (DataLoader(Stream(), batch_size=3), None),
    "generator": lambda: ((pair for pair in zip(IMAGES, LABELS, strict=True)), None),
    "half precision": lambda: ([to_tensor(image).double() for image in IMAGES], LABELS),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_data_gives_the_same_card(tmp_path, name):
    data, labels = SOURCES[name]()
    assert save_images(data, tmp_path / "sets/x.npz", labels) == COUNT
    card = prepare(
        DatasetConfig(name="toy", source="npz", path=str(tmp_path / "sets/x.npz")), tmp_path / "out"
    )
    found = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(found.images_NCHW, IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found.labels_N, LABELS)
    assert card.classes == 4
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["x.npz"]


def test_without_labels_and_grey(tmp_path):
    save_images(IMAGES[..., 0], tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        assert archive.files == ["images"]
        np.testing.assert_array_equal(archive["images"], IMAGES[..., :1])


@pytest.mark.parametrize(("match", "data", "labels"), [
    ("image 0: is float64 of shape .10, 8, 8, 3., from -1.0 to 1.0; allowed are 8-bit pixels",
     IMAGES / 127.5 - 1, None),
    ("image 0: is float32", (IMAGES / 254).astype(np.float32), None),
    ("image 0: is float64", np.full((2, 4, 4, 3), np.nan), None),
    ("image 0: is int64", IMAGES.astype(np.int64), None),
    ("is uint8 of shape .10, 3, 8, 8., allowed is .H, W, C. with 1 to 4",
     IMAGES.transpose(0, 3, 1, 2), None),
    ("is uint8 of shape .10, 8, 8, 3., allowed is .C, H, W.", torch.from_numpy(IMAGES), None),
    ("image 4: has shape .4, 8, 3., the first one has .8, 8, 3.", [*IMAGES[:4], IMAGES[4][:4]],
     None),
    ("labels: are 9, there are 10 images", IMAGES, LABELS[1:]),
    ("labels: .* is no class", IMAGES, LABELS - 5),
    ("labels: 0.5 is no class", [(IMAGES[0], 0.5)], None),
    ("yields a label with some of the images only", [(IMAGES[0], 1), IMAGES[1]], None),
    ("data: yields no image", [], None),
    ("data: is int, allowed are an array, a torch Dataset", 5, None),
])  # fmt: skip
def test_other_values_are_refused_and_leave_nothing(tmp_path, match, data, labels):
    with pytest.raises(JstarError, match=match) as caught:
        save_images(data, tmp_path / "x.npz", labels)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_users_own_data_leaves_the_file_that_was_there(tmp_path):
    save_images(IMAGES, tmp_path / "x.npz")
    before = (tmp_path / "x.npz").read_bytes()

    def broken():
        yield IMAGES[0]
        raise KeyError("their own")

    with pytest.raises(KeyError, match="their own"):
        save_images(broken(), tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(JstarError, match="are written as .npz"):
        save_images(IMAGES, tmp_path / "x.npy")
