"""Image files: ImageNet, Tiny-ImageNet and any folder, zip or tar of images."""

import re
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.image import SUFFIXES, Decoding
from jstar.data.sources.base import DECODING_KEYS, Job, Reader, Shape, Source, source_path
from jstar.data.sources.decoding import FileJob, first_shape
from jstar.data.sources.index import (
    Index,
    Item,
    first_of_tar,
    is_hidden,
    open_index,
    ranks,
)
from jstar.data.sources.labels import (
    LABELS,
    NO_CLASS,
    OF_JSON,
    Facts,
    Marks,
    class_fact,
    folder_labels,
    json_labels,
    select_split,
    split_fact,
    split_folder,
    without_labels,
)
from jstar.data.sources.parquet import (
    PARQUET_KEYS,
    PARQUET_LABELS,
    glance_parquet,
    is_parquet,
    open_parquet,
)
from jstar.errors import JstarError

IMAGENET_TERMS = "ImageNet terms: non-commercial research and education"
IMAGENET_CITATION = "Russakovsky et al. (2015), ImageNet Large Scale Visual Recognition Challenge"
NO_SIZE = "dataset.size: is missing, photographs of many sizes must be cropped to one"
OF_WNID = "rank of the WordNet id among the folders"
WNID = re.compile(r"n\d{8}")


def is_image(name: str) -> bool:
    """Whether the name is that of an image file, and not of a hidden one."""
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def shape_of(config: DatasetConfig, first: Item | None, *, convert: bool = True) -> Shape:
    """[C, H, W] of the images, by their first. Raises JstarError where there is none."""
    if first is None:
        raise JstarError(f"{config.path}: holds no image file ({', '.join(SUFFIXES)})")
    decoding = Decoding(config.channels, config.size, convert, config.max_pixels)
    return first_shape(first.read(decoding.max_bytes), first.label, decoding)


def file_source(
    config: DatasetConfig,
    index: Index,
    labels_N: NDArray[np.int64],
    classes: int,
    *,
    convert: bool = False,
    facts: Facts = (),
    license: str = "as stated by its source",
    citation: str = "",
) -> Source:
    """A source whose images are the files of `index`."""
    shape = shape_of(config, index.item(0) if index.names else None, convert=convert)
    decoding = Decoding(config.channels, config.size, convert, config.max_pixels)

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        for low in range(start, stop, block):
            high = min(low + block, stop)
            yield FileJob(index.items(low, high), labels_N[low:high], decoding, shape)

    return Source(
        count=len(index.names), shape=shape, jobs=jobs,
        identity=[index.identity(), zlib.crc32(labels_N.tobytes())],
        classes=classes, parallel=True, license=license, citation=citation,
        labels=lambda: labels_N, left_out=tuple(sorted(index.left_out.items())), facts=facts,
    )  # fmt: skip


@lru_cache(maxsize=2048)
def _train_class(folder: str) -> str:
    """The WordNet id among the folders of an ImageNet file; empty where there is none, and in the
    validation or test set."""
    parts = folder.split("/")
    found = [part for part in parts if WNID.fullmatch(part)]
    return found[-1] if found and not {"val", "test"} & set(parts) else ""


def _class_of(name: str) -> str:
    return _train_class(name.rpartition("/")[0])


def _is_train(name: str) -> bool:
    return is_image(name) and bool(_class_of(name))


def open_imagenet(config: DatasetConfig) -> Source:
    """ImageNet's training images: class folders, ILSVRC2012_img_train.tar, a zip, or parquet.

    Labels are the ranks of the WordNet ids. Grey, CMYK and transparent images become RGB, as in
    ADM and EDM; the card counts them.
    """
    if is_parquet(config):
        return open_parquet(config, convert=True, classes=1000, license=IMAGENET_TERMS,
                            citation=IMAGENET_CITATION)  # fmt: skip
    if config.size is None:
        raise JstarError(NO_SIZE)
    index = open_index(source_path(config), _is_train)
    labels, classes = ranks([_class_of(name) for name in index.names])
    return file_source(config, index, labels, classes, convert=True, facts=class_fact(OF_WNID),
                       license=IMAGENET_TERMS, citation=IMAGENET_CITATION)  # fmt: skip


def open_tiny_imagenet(config: DatasetConfig) -> Source:
    """Tiny-ImageNet-200's training images (folder or zip), 64x64; labels rank the WordNet ids."""
    index = open_index(source_path(config), _is_train)
    labels, classes = ranks([_class_of(name) for name in index.names])
    return file_source(config, index, labels, classes, facts=class_fact(OF_WNID),
                       license=IMAGENET_TERMS,
                       citation="Le & Yang (2015), Tiny ImageNet, CS 231N")  # fmt: skip


def open_images(config: DatasetConfig) -> Source:
    """Any folder, zip or tar of image files, sorted by name.

    The class is what EDM's dataset.json says where it is there, else the rank of the folder.
    Raises JstarError where the folders can be read in several ways: it names the key that decides.
    """
    index, marks, facts = _images(config)
    if config.labels == "none" or not index.names:
        (labels, classes), kind = without_labels(len(index.names)), NO_CLASS
    elif config.labels == "json" or (config.labels is None and marks):
        (labels, classes), kind = json_labels(config, marks, index.names), OF_JSON
    else:
        (labels, classes), kind = folder_labels(config, index.names), "rank of the folder"
    return file_source(config, index, labels, classes, facts=facts + class_fact(kind))


def _images(config: DatasetConfig) -> tuple[Index, Marks | None, Facts]:
    """The images of the wanted split, and their dataset.json."""
    index = open_index(source_path(config), lambda name: is_image(name) or is_labels(name))
    marks = take_labels(config, index)
    folders = [split_folder(name) for name in index.names]
    index.select(select_split(config, folders, none_is_split=False))
    return index, marks, split_fact(config, folders)


def is_labels(name: str) -> bool:
    return name.rpartition("/")[2] == LABELS and not is_hidden(name)


def take_labels(config: DatasetConfig, index: Index) -> Marks | None:
    """Take dataset.json out of the index. Raises JstarError where there are several."""
    at = [n for n, name in enumerate(index.names) if is_labels(name)]
    if len(at) > 1 and config.labels in (None, "json"):
        raise JstarError(
            f"{config.path}: holds several {LABELS} ({index.names[at[0]]}, {index.names[at[1]]}); "
            "give the path of one, or dataset.labels: folder or none"
        )
    found = Marks(index.item(at[0]), index.names[at[0]]) if at else None
    if at:
        others = set(at)
        index.select([n for n in range(len(index.names)) if n not in others])
    return found


def _glance_images(config: DatasetConfig) -> tuple[int | None, Shape]:
    path = source_path(config)
    if path.suffix == ".tar":
        return None, shape_of(config, first_of_tar(path, is_image))
    index, _, _ = _images(config)
    return len(index.names), shape_of(config, index.item(0) if index.names else None)


def _glance(keep: Callable[[str], bool]) -> Callable[[DatasetConfig], tuple[int | None, Shape]]:
    def glance(config: DatasetConfig) -> tuple[int | None, Shape]:
        path = source_path(config)
        if is_parquet(config):
            return glance_parquet(config)
        if path.suffix == ".tar":
            return None, shape_of(config, first_of_tar(path, keep))
        index = open_index(path, keep)
        return len(index.names), shape_of(config, index.item(0) if index.names else None)

    return glance


def _published(count: int, side: int | None) -> Callable[[DatasetConfig], tuple[int, Shape]]:
    """Of a set of `count` images; photographs of many sizes take that of the crop."""

    def published(config: DatasetConfig) -> tuple[int, Shape]:
        size = config.size or side
        if size is None:
            raise JstarError(NO_SIZE)
        return count, (config.channels, size, size)

    return published


IMAGES = Reader(
    open_images,
    _glance_images,
    DECODING_KEYS | {"split", "nested"},
    ("folder", "json", "none"),
    "give a folder, .zip or .tar of image files",
)
IMAGENET = Reader(
    open_imagenet,
    _glance(_is_train),
    DECODING_KEYS | PARQUET_KEYS,
    PARQUET_LABELS,
    "ImageNet is never downloaded: get ILSVRC2012_img_train.tar from image-net.org/download-images "
    "after registering, and give its path, or that of the class folders, a .zip, or parquet files",
    _published(1_281_167, None),
)
TINY_IMAGENET = Reader(
    open_tiny_imagenet,
    _glance(_is_train),
    DECODING_KEYS,
    (),
    "Tiny-ImageNet stands under ImageNet's terms and is never downloaded: get "
    "tiny-imagenet-200.zip from cs231n.stanford.edu, and give its path",
    _published(100_000, 64),
)
