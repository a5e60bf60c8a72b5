"""Readers: one a format, each opens files as they are distributed."""

from pathlib import Path

from jstar.config import DatasetConfig
from jstar.data.sources.arrays import NPZ
from jstar.data.sources.base import Job, Reader, Rows, Shape, Source
from jstar.data.sources.cifar10 import CIFAR10
from jstar.data.sources.digits import DIGITS
from jstar.data.sources.downsampled import DOWNSAMPLED
from jstar.data.sources.edm2 import EDM2, REPA
from jstar.data.sources.fast_dit import FAST_DIT
from jstar.data.sources.files import IMAGENET, IMAGES, TINY_IMAGENET
from jstar.data.sources.idx import IDX
from jstar.data.sources.lightningdit import LIGHTNINGDIT
from jstar.data.sources.parquet import PARQUET
from jstar.data.sources.webdataset import WEBDATASET
from jstar.errors import JstarError

READERS = {
    "digits": DIGITS,
    "npz": NPZ,
    "cifar10": CIFAR10,
    "mnist": IDX,
    "fashion-mnist": IDX,
    "imagenet32": DOWNSAMPLED,
    "imagenet64": DOWNSAMPLED,
    "imagenet": IMAGENET,
    "tiny-imagenet": TINY_IMAGENET,
    "images": IMAGES,
    "parquet": PARQUET,
    "webdataset": WEBDATASET,
    "edm2": EDM2,
    "repa": REPA,
    "lightningdit": LIGHTNINGDIT,
    "fast-dit": FAST_DIT,
}


CHECKED = (
    "size", "channels", "vae", "channel_mean", "latent_std", "posterior", "max_pixels",
    "split", "nested", "image_column", "label_column", "extension",
)  # fmt: skip


def reader(config: DatasetConfig) -> Reader:
    """The reader of `config.source`. Raises JstarError for a key of the study it does not take."""
    chosen = READERS[config.source]
    for key in CHECKED:
        value = getattr(config, key)
        if value != DatasetConfig.model_fields[key].default and key not in chosen.keys:
            takers = ", ".join(name for name, known in READERS.items() if key in known.keys)
            raise JstarError(
                f"dataset.{key} = {value}: the source '{config.source}' does not take it, "
                f"allowed with {takers}"
            )
    if config.labels is not None and config.labels not in chosen.labels:
        allowed = ", ".join(chosen.labels) or "only what its files say: leave the key out"
        raise JstarError(
            f"dataset.labels = {config.labels}: the source '{config.source}' does not take it, "
            f"allowed: {allowed}"
        )
    return chosen


def paired(config: DatasetConfig) -> bool:
    """Whether each image is followed by its mirrored one, which its files hold as well."""
    return config.mirror and READERS[config.source].flips


def present(config: DatasetConfig) -> Reader:
    """As `reader`, once the files are known to be there. Raises JstarError that says where."""
    chosen = reader(config)
    if config.path is None and chosen.needs_path:
        raise JstarError(
            f"dataset.path: is missing, the source '{config.source}' needs a path; {chosen.where}"
        )
    if config.path is not None and not (chosen.needs_path or chosen.free):
        raise JstarError(
            f"dataset.path = {config.path!r}: the source '{config.source}' reads no file"
        )
    if config.path is not None and not (path := Path(config.path)).exists():
        raise JstarError(f"dataset.path = {config.path!r}: no such file; {chosen.where}")
    if config.path is not None and not (path.is_file() or path.is_dir()):
        raise JstarError(f"dataset.path = {config.path!r}: is neither a regular file nor a folder")
    return chosen


__all__ = ["READERS", "Job", "Reader", "Rows", "Shape", "Source", "paired", "present", "reader"]
