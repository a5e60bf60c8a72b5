"""Jobs that turn encoded images into rows: they can be pickled and run in another process."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.data.image import Decoding
from jstar.data.sources.base import Rows, Shape
from jstar.data.sources.index import Item
from jstar.errors import JstarError


@dataclass(frozen=True)
class FileJob:
    """Read and decode image files. Small to pickle: it carries places, not contents."""

    items: Sequence[Item]
    labels_B: NDArray[np.int64]
    decoding: Decoding
    shape: Shape

    def __len__(self) -> int:
        return len(self.labels_B)

    def __call__(self) -> Rows:
        limit = self.decoding.max_bytes
        files = ((item.read(limit), item.label) for item in self.items)
        return _decode(files, self.labels_B, self.decoding, self.shape)


@dataclass(frozen=True)
class BytesJob:
    """Decode image files whose contents are at hand; `names` are those of an error."""

    files: Sequence[bytes]
    names: Sequence[str]
    labels_B: NDArray[np.int64]
    decoding: Decoding
    shape: Shape

    def __len__(self) -> int:
        return len(self.labels_B)

    def __call__(self) -> Rows:
        files = zip(self.files, self.names, strict=True)
        return _decode(files, self.labels_B, self.decoding, self.shape)


def first_shape(data: bytes, name: str, decoding: Decoding) -> Shape:
    """[C, H, W] of the first image, which all others must share."""
    channels, rows, columns = decoding(data, name)[0].shape
    return channels, rows, columns


def _decode(
    files: Iterable[tuple[bytes, str]],
    labels_B: NDArray[np.int64],
    decoding: Decoding,
    shape: Shape,
) -> Rows:
    images = np.empty((len(labels_B), *shape), np.uint8)
    traits: Counter[str] = Counter()
    for image, (data, name) in zip(images, files, strict=True):
        pixels, found = decoding(data, name)
        if pixels.shape != shape:
            raise JstarError(
                f"{name}: is {pixels.shape[2]}x{pixels.shape[1]} pixels, the first image is "
                f"{shape[2]}x{shape[1]}; images must share one size, or give dataset.size to crop"
            )
        image[...] = pixels
        traits.update(found)
    return Rows(images, labels_B, traits=traits)
