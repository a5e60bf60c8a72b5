"""Reading a prepared dataset: memory-mapped images and their card."""

from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from jstar.data.card import Card
from jstar.data.classes import require_classes
from jstar.errors import JstarError
from jstar.noise import gaussian
from jstar.records import sha256_of

# Of a damaged .npy file: NumPy parses the header's text as Python.
HEADER_FAULTS = (OSError, EOFError, ValueError, TypeError, OverflowError, SyntaxError, TokenError,
                 BadZipFile)  # fmt: skip
SPLITS = {"train": "", "holdout": "holdout_"}


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset. Images stay on disk until they are indexed.

    Sampled latents have a mean (`images_NCHW`) and a standard deviation (`stds_NCHW`) an image;
    every other dataset has `stds_NCHW` None.
    """

    card: Card
    images_NCHW: NDArray[Any]  # stored unit, memory-mapped
    labels_N: NDArray[np.int64]
    stds_NCHW: NDArray[Any] | None = None  # stored unit, memory-mapped

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def labels_for(self, conditional: bool) -> NDArray[np.int64] | None:
        """Labels [N] of models that see them; None for those that do not.

        Raises JstarError unless there are two classes or more, with images of each.
        """
        if not conditional:
            return None
        require_classes(self.labels_N, self.card.classes, f"dataset '{self.card.name}'")
        return self.labels_N

    def scaled(self, index_M: NDArray[Any] | slice) -> NDArray[np.float32]:
        """Images (of sampled latents: means) in the model's data scale, float32 [M, C, H, W]."""
        stored = np.asarray(self.images_NCHW[index_M], dtype=np.float32)
        return (stored - np.float32(self.card.offset)) * np.float32(self.card.scale)

    def scaled_stds(self, index_M: NDArray[Any] | slice) -> NDArray[np.float32]:
        """Standard deviations of sampled latents in the model's data scale; zeros otherwise.

        float32 [M, C, H, W].
        """
        if self.stds_NCHW is None:
            return np.zeros(self.images_NCHW[index_M].shape, np.float32)
        return np.asarray(self.stds_NCHW[index_M], np.float32) * np.float32(self.card.scale)

    def sampled(
        self, index_M: NDArray[Any], seed: int, draw_M: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Draws from the training distribution: mean + std * eps, float32 [M, C, H, W].

        eps is a pure function of (seed, draw_M[m]): give each visit of an image its own draw, for
        example the number of images seen, and a seed of which no other noise is made. Without
        sampled latents these are the images themselves.
        """
        mean = self.scaled(index_M)
        if self.stds_NCHW is None:
            return mean
        eps = gaussian(seed, np.asarray(draw_M), self.card.dim).reshape(mean.shape)
        return mean + self.scaled_stds(index_M) * eps


def open_dataset(folder: str | Path, split: str = "train", *, verify: bool = True) -> Dataset:
    """Open the dataset that prepare wrote to `folder`; `split` is `train` or `holdout`.

    verify: whether images are compared with the card's checksums, at the speed of reading and once
    in a process; labels always are.
    Raises JstarError where the folder holds no dataset, no such split, or not what its card says.
    """
    folder = Path(folder)
    if split not in SPLITS:
        raise JstarError(f"split = '{split}' is unknown, allowed are {', '.join(SPLITS)}")
    if not (folder / "card.json").is_file():
        raise JstarError(f"{folder}: holds no card.json, run 'jstar prepare' first")
    card = Card.load(folder / "card.json")
    if not stored_arrays(card, split):
        raise JstarError(f"{folder}: holds no held-out images, set dataset.holdout")

    def read(name: str) -> NDArray[Any]:
        return read_array(folder, card, split, name, verify=verify or name == "labels")

    images, labels = read("images"), np.asarray(read("labels"))
    return Dataset(card, images, labels, read("stds") if card.sampled else None)


def stored_arrays(card: Card, split: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Arrays of a split: name -> (shape, dtype); none where the card holds nothing out."""
    count = card.count if split == "train" else card.holdout
    arrays = {"images": ((count, *card.shape), card.dtype), "labels": ((count,), "int64")}
    if card.sampled:
        arrays["stds"] = arrays["images"]
    return arrays if count else {}


def read_array(
    folder: Path, card: Card, split: str, name: str, *, verify: bool = True
) -> NDArray[Any]:
    """One of `stored_arrays`, memory-mapped; `verify`: compared with the card's checksum.

    Raises JstarError where it is not what the card says.
    """
    path, (shape, dtype) = folder / f"{SPLITS[split]}{name}.npy", stored_arrays(card, split)[name]
    return _read(path, shape, dtype, card.checksum(split, name) if verify else "")


def load_array(path: str | Path) -> "np.memmap[Any, Any]":
    """A .npy file, memory-mapped: a header that promises more than there is reserves nothing.

    Raises JstarError where it is no whole one.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except HEADER_FAULTS as error:
        raise JstarError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(array, np.memmap):
        array.close()
        raise JstarError(f"{path}: cannot be read (an archive, not an array)")
    return array


def _read(path: Path, shape: tuple[int, ...], dtype: str, sha256: str) -> NDArray[Any]:
    """The array, memory-mapped; `sha256`: of its values, empty where they are not looked at."""
    array = load_array(path)
    kind = np.dtype(dtype)
    if array.shape != shape or array.dtype != kind or not array.flags.c_contiguous:
        raise JstarError(
            f"{path}: holds {array.dtype} of shape {array.shape}, the card says {dtype} {shape}; "
            "run prepare again"
        )
    if path.stat().st_size != array.offset + array.nbytes or (
        sha256 and sha256_of(path, array.offset) != sha256
    ):
        raise JstarError(
            f"{path}: is damaged or was edited, its checksum is not the one in {path.parent}/"
            "card.json; run prepare again"
        )
    return array
