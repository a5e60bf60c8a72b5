"""Reading a prepared dataset: memory-mapped images and their card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.data.card import Card
from jstar.data.classes import require_classes
from jstar.errors import JstarError
from jstar.noise import gaussian

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


def open_dataset(folder: str | Path, split: str = "train") -> Dataset:
    """Open the dataset that prepare wrote to `folder`; `split` is `train` or `holdout`.

    Raises JstarError where the folder holds no dataset, no such split, or not what its card says.
    """
    folder = Path(folder)
    if split not in SPLITS:
        raise JstarError(f"split = '{split}' is unknown, allowed are {', '.join(SPLITS)}")
    prefix = SPLITS[split]
    if not (folder / "card.json").is_file():
        raise JstarError(f"{folder}: holds no card.json, run 'jstar prepare' first")
    card = Card.load(folder / "card.json")
    expected = card.count if split == "train" else card.holdout
    if expected == 0:
        raise JstarError(f"{folder}: holds no held-out images, set dataset.holdout")
    images = _read(folder / f"{prefix}images.npy", (expected, *card.shape), card.dtype)
    labels = _read(folder / f"{prefix}labels.npy", (expected,), "int64")
    stds = None
    if card.sampled:
        stds = _read(folder / f"{prefix}stds.npy", (expected, *card.shape), card.dtype)
    return Dataset(card, images, np.asarray(labels), stds)


def _read(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise JstarError(f"{path}: cannot be read ({error})") from error
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise JstarError(
            f"{path}: holds {array.dtype} of shape {array.shape}, the card says {dtype} {shape}; "
            "run prepare again"
        )
    return array
