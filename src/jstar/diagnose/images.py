"""Images as users have them: files, folders, arrays, datasets; as a prepared folder in the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.card import Card
from jstar.data.sources import present
from jstar.data.sources.base import tree_stamp
from jstar.data.sources.idx import IMAGES, read_idx
from jstar.errors import JstarError

ARCHIVES = (".zip", ".tar")
PIXEL = 1e-3  # levels of 0...255: floats nearer to whole levels are pixels
PEEKED = 2


def is_prepared(dataset: Path) -> bool:
    """Whether `jstar prepare` wrote the folder."""
    return (dataset / "card.json").is_file()


def images_config(dataset: Path, work: Path) -> DatasetConfig:
    """How `dataset` is prepared: a .npz or .npy, a folder or archive of images, parquet, IDX.

    Latents keep their own scale. Float images of a .npz are read as they are; they are rewritten
    to `work`, as pixels where they are levels of 0...255 scaled to -1...1. IDX files (MNIST's
    format) are rewritten, too. Raises JstarError.
    """
    if not dataset.exists():
        raise JstarError(f"{dataset}: no such file or folder")
    stem = "".join(c if c.isalnum() else "-" for c in dataset.stem.lower()).strip("-") or "images"
    tree: dict[str, Any] = {"name": stem[:60], "source": "images", "path": str(dataset)}
    if dataset.suffix in (".npz", ".npy"):
        floats = _float_images(dataset)
        if floats is not None:
            tree["path"] = str(write_images(*floats, work / "images.npz"))
        tree["source"] = "npz"
        if _holds_latents(Path(tree["path"])):
            tree["latent_std"] = 1.0  # as they are, not at half their deviation
    elif (idx := _idx_images(dataset)) is not None:
        tree |= {"source": "npz", "path": str(_rewritten_idx(idx, work / "images.npz"))}
    elif dataset.suffix == ".parquet" or any(dataset.glob("*.parquet")):
        tree["source"] = "parquet"
    elif not (dataset.is_dir() or dataset.suffix in ARCHIVES):
        raise JstarError(
            f"{dataset}: is no dataset, allowed are a folder that 'jstar prepare' wrote, a .npz or "
            ".npy, a folder, .zip or .tar of images, parquet, and IDX files"
        )
    return DatasetConfig.checked(tree, str(dataset))


def peek(dataset: Path, work: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first images [2, C, H, W] in the data scale and their labels, before anything else."""
    if is_prepared(dataset):
        data = open_dataset(dataset)
        return data.scaled(slice(0, PEEKED)), np.asarray(data.labels_N[:PEEKED])
    config = images_config(dataset, work)
    source = present(config).open(config)
    rows = next(source.jobs(0, min(PEEKED, source.count), PEEKED))()
    rows = source.finish(rows) if source.finish else rows
    pixels = np.asarray(rows.images_BCHW, np.float32)
    return (pixels - np.float32(source.offset)) * np.float32(source.scale), rows.labels_B


def prepared_folder(dataset: Path, work: Path) -> Path:
    """Folder of the prepared dataset; anything else is prepared to `work`, where it is not yet."""
    if is_prepared(dataset):
        return dataset
    if not _was_prepared(dataset, work):
        prepare(images_config(dataset, work), work)
    return work


def _was_prepared(dataset: Path, work: Path) -> bool:
    """Whether `work` was made of these files, as they are now: names, sizes and times."""
    if not (is_prepared(work) and dataset.exists()):
        return False
    card = Card.load(work / "card.json")
    return (card.origin, card.source_stamp) == (str(dataset), tree_stamp(dataset))


def _idx_images(dataset: Path) -> Path | None:
    """The images of an IDX pair: the file itself, or a folder's training images."""
    folder = [dataset / f"{IMAGES}{end}" for end in ("", ".gz")]
    named = [file for file in (dataset, *folder) if "images-idx3" in file.name]
    return next((file for file in named if file.is_file()), None)


def _rewritten_idx(images: Path, path: Path) -> Path:
    """The .npz of IDX images and, where they lie beside them, their labels."""
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    known = read_idx(labels, 1) if labels.is_file() else None
    return write_images(read_idx(images, 3), known, path)


def _holds_latents(path: Path) -> bool:
    if path.suffix == ".npy":
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).dtype.kind == "f")
    with np.load(path, allow_pickle=False) as stored:
        return "latents" in stored.files


def _float_images(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None] | None:
    """Float `images` of a .npz and its labels, if that is what it holds."""
    if path.suffix != ".npz":
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if "images" not in stored.files or "latents" in stored.files:
                return None
            # The header alone says whether they are floats: nothing is unpacked for uint8.
            with stored.zip.open("images.npy") as file:
                np.lib.format.read_magic(file)
                dtype = np.lib.format.read_array_header_1_0(file)[2]
            if dtype.kind != "f":
                return None
            return stored["images"], stored["labels"] if "labels" in stored.files else None
    except (OSError, ValueError) as error:
        raise JstarError(f"{path}: is not a .npz archive of plain arrays") from error


def write_images(images: Any, labels: Any, path: Path) -> Path:
    """Write images [N, ...] as the .npz that prepare reads; returns `path`.

    uint8 [N, H, W, C] or [N, C, H, W]; floats likewise: pixels where they are levels of 0...255
    scaled to -1...1, else kept as they are (float16). Raises JstarError.
    """
    array = np.asarray(images)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or not len(array):
        raise JstarError(
            f"images: have shape {array.shape}, allowed is [N, C, H, W] or [N, H, W, C]"
        )
    last_is_channel = array.shape[1] not in (1, 3, 4) or array.shape[2] != array.shape[3]
    if array.shape[-1] in (1, 3, 4) and last_is_channel:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise JstarError("images: hold numbers that are not finite")
        array = _as_pixels(array)
    elif array.dtype != np.uint8:
        raise JstarError(f"images: are {array.dtype}, allowed are uint8 and floats")
    arrays = (
        {"images": np.ascontiguousarray(array.transpose(0, 2, 3, 1))}
        if array.dtype == np.uint8
        else {"latents": array.astype(np.float16)}
    )
    if labels is not None:
        arrays["labels"] = np.asarray(labels).astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def _as_pixels(array: NDArray[Any]) -> NDArray[Any]:
    """uint8 where floats are levels of 0...255 scaled to -1...1, and reach below 0."""
    if array.min() < -1 - PIXEL or array.max() > 1 + PIXEL or array.min() >= 0:
        return array
    level = (array.astype(np.float32) + 1) * 127.5
    whole = np.rint(level)
    return whole.astype(np.uint8) if np.abs(level - whole).max() < PIXEL * 10 else array


def collect(images: Any) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Images and labels of an array, a torch Dataset or DataLoader, or a Hugging Face dataset.

    Of a DataLoader the batches, of a Dataset the items: an image, (image, label), or a dict with
    image (or img, pixel_values) and label. Images: tensors, arrays or PIL images of one size.
    """
    if isinstance(images, torch.Tensor):
        return images.detach().cpu().numpy(), None
    if isinstance(images, np.ndarray):
        return images, None
    batched = isinstance(images, torch.utils.data.DataLoader)
    found, labels = [], []
    for item in _items(images):
        image, label = _pair(item)
        found.append(np.asarray(image))
        if label is not None:
            labels.append(np.asarray(label))
    if not found:
        raise JstarError("images: the dataset is empty")
    if len({f.shape[1:] if batched else f.shape for f in found}) > 1:
        raise JstarError("images: are not of one size; crop or resize them as in training")
    join = np.concatenate if batched else np.stack
    return join(found), join(labels) if len(labels) == len(found) else None


def _items(images: Any) -> Iterator[Any]:
    try:
        yield from (
            (images[k] for k in range(len(images))) if not hasattr(images, "__iter__") else images
        )
    except TypeError as error:
        raise JstarError(
            f"images: are {type(images).__name__}, allowed are a path, an array [N, ...], a torch "
            "Dataset or DataLoader, and a Hugging Face dataset"
        ) from error


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, dict):
        for name in ("image", "img", "pixel_values", "images"):
            if name in item:
                return item[name], item.get("label", item.get("labels"))
        raise JstarError(f"images: an item holds {', '.join(item)}, an 'image' is needed")
    if isinstance(item, tuple | list):
        return item[0], item[1] if len(item) > 1 else None
    return item, None
