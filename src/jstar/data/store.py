"""Reading a prepared dataset: memory-mapped images and their card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.data.card import Card
from jstar.errors import JstarError


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset. Images stay on disk until they are indexed."""

    card: Card
    images_NCHW: NDArray[Any]  # stored unit, memory-mapped
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def scaled(self, index_M: NDArray[Any] | slice) -> NDArray[np.float32]:
        """Images in the model's data scale, float32 [M, C, H, W]."""
        stored = np.asarray(self.images_NCHW[index_M], dtype=np.float32)
        return (stored - np.float32(self.card.offset)) * np.float32(self.card.scale)


def open_dataset(folder: str | Path, split: str = "train") -> Dataset:
    """Open the dataset that prepare wrote to `folder`; `split` is `train` or `holdout`."""
    folder = Path(folder)
    prefix = {"train": "", "holdout": "holdout_"}[split]
    if not (folder / "card.json").is_file():
        raise JstarError(f"{folder}: holds no card.json, run 'jstar prepare' first")
    card = Card.load(folder / "card.json")
    try:
        images = np.load(folder / f"{prefix}images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / f"{prefix}labels.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise JstarError(f"{folder}/{prefix}images.npy: cannot be read ({error})") from error
    expected = card.count if split == "train" else card.holdout
    if images.shape != (expected, *card.shape) or len(labels) != expected:
        raise JstarError(
            f"{folder}/{prefix}images.npy: has shape {images.shape}, "
            f"the card says {(expected, *card.shape)}; run prepare again"
        )
    return Dataset(card, images, labels)
