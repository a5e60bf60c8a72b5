"""What can be said about a study's dataset before any job has run."""

import zipfile
from pathlib import Path

from numpy.lib import format as npy

from jstar.config import DatasetConfig, Study
from jstar.errors import JstarError

DIGITS_COUNT = 1797


def image_count(config: DatasetConfig) -> int:
    """Images in the source, read from its header; raises JstarError if it does not exist."""
    return source_shape(config)[0]


def source_shape(config: DatasetConfig) -> tuple[int, int, int, int]:
    """(N, C, H, W) of the source, read from its header; raises JstarError if it does not exist."""
    if config.source == "digits":
        return DIGITS_COUNT, 1, 8, 8
    if config.path is None:
        raise JstarError(f"dataset.path: is missing, the source '{config.source}' needs a path")
    path = Path(config.path)
    if not path.exists():
        raise JstarError(
            f"dataset.path = {str(path)!r}: no such file, put the data of '{config.name}' there"
        )
    try:
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as header:
            version = npy.read_magic(header)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            count, rows, columns, *channels = read(header)[0]
            return count, channels[0] if channels else 1, rows, columns
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise JstarError(f"{path}: is not a .npz archive with an array 'images'") from error


def check_study(study: Study, origin: str = "study") -> None:
    """Compare the study with its dataset. Raises JstarError: one sentence that names `origin`."""
    try:
        found = image_count(study.dataset)
    except JstarError as error:
        raise JstarError(f"{origin}: {error}") from error
    count = min(found, study.dataset.limit or found) - study.dataset.holdout
    if count < 2:
        raise JstarError(
            f"{origin}: dataset.holdout = {study.dataset.holdout} leaves {count} of {found} images "
            "to train on, at least 2 are needed"
        )
    if study.train.batch > count:
        raise JstarError(
            f"{origin}: train.batch = {study.train.batch} exceeds the data: "
            f"'{study.dataset.name}' has {count} images to train on, allowed is 1 to {count}"
        )
