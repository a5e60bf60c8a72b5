"""The data points that make up p0, read tile by tile in centred stored units.

Everything in this room is computed in *stored units* z = u - centre, where u is what lies on disk
and x = (u - offset) * scale is the model's data scale. Posterior weights only see differences, so
sigma becomes sigma / |scale| and a loss is multiplied by scale^2 at the very end. For uint8 data
z = u - 128 is exactly an int8, which is what makes exact low-precision products possible.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.errors import JstarError

TILE = 2048  # data points in one tile; shards and sums are cut at its multiples


@dataclass(frozen=True)
class DataPoints:
    """N data points of D dimensions, and their mirror images if `mirror`.

    stored_ND: uint8 or floating point, possibly memory-mapped. shape: of one image, for mirroring.
    rows_N: the rows of `stored_ND` that belong to this set (None: all). spread_ND: standard
    deviation of the Gaussian component around each point, in stored units, or None.
    """

    stored_ND: NDArray[Any]
    shape: tuple[int, ...]
    centre: float
    scale: float
    mirror: bool = False
    rows_N: NDArray[np.int64] | None = None
    spread_ND: NDArray[Any] | None = None

    @property
    def images(self) -> int:
        """Images without their mirror images."""
        return len(self.stored_ND) if self.rows_N is None else len(self.rows_N)

    def __len__(self) -> int:
        return self.images * (2 if self.mirror else 1)

    @property
    def dim(self) -> int:
        return int(self.stored_ND.shape[1])

    @property
    def integer(self) -> bool:
        """Whether z is exactly an int8."""
        return bool(self.stored_ND.dtype == np.uint8)

    def subset(self, rows_N: NDArray[np.int64]) -> "DataPoints":
        """The points of these images only (and their mirror images)."""
        return replace(self, rows_N=rows_N if self.rows_N is None else self.rows_N[rows_N])

    def take(self, index_N: NDArray[np.int64]) -> torch.Tensor:
        """Points by index, [N, D]: int8 if `integer`, else float32. Index >= images is mirrored."""
        order = np.argsort(index_N % self.images, kind="stable")  # read the disk front to back
        rows = index_N[order] % self.images
        flipped = index_N[order] >= self.images
        out = self._centred(self.stored_ND[rows if self.rows_N is None else self.rows_N[rows]])
        if flipped.any():
            out[torch.from_numpy(flipped)] = self._flip(out[torch.from_numpy(flipped)])
        return out[torch.from_numpy(np.argsort(order, kind="stable"))]

    def tile(self, start: int, stop: int) -> torch.Tensor:
        """Points start..stop-1, [n, D], as `take`; a tile never mixes images and mirror images."""
        flipped = start >= self.images
        shift = self.images if flipped else 0
        part = slice(start - shift, stop - shift)
        stored = self.stored_ND[part if self.rows_N is None else self.rows_N[part]]
        out = self._centred(stored)
        return self._flip(out) if flipped else out

    def spread(self, index_N: NDArray[np.int64]) -> torch.Tensor:
        """Standard deviations of the components by index, float32 [N, D]."""
        assert self.spread_ND is not None
        rows = index_N % self.images
        picked = self.spread_ND[rows if self.rows_N is None else self.rows_N[rows]]
        out = torch.from_numpy(np.array(picked, dtype=np.float32))
        if not bool(torch.isfinite(out).all()) or bool((out < 0).any()):
            raise JstarError("spread: holds NaN, infinite or negative standard deviations")
        flipped = torch.from_numpy(index_N >= self.images)
        if flipped.any():
            out[flipped] = self._flip(out[flipped])
        return out

    def mean_square_spread(self) -> float:
        """Mean over the points of |s_n|^2, the summed variances of their components."""
        squares = [
            float(self.spread(np.arange(start, stop)).double().square().sum())
            for start, stop in self.tiles()
        ]
        return sum(squares) / len(self)

    def tiles(self, size: int = TILE) -> Iterator[tuple[int, int]]:
        """(start, stop) of every tile; the images first, then their mirror images."""
        for base in range(0, len(self), self.images):
            for start in range(base, base + self.images, size):
                yield start, min(start + size, base + self.images)

    def _centred(self, stored_ND: NDArray[Any]) -> torch.Tensor:
        if self.integer:
            # u - 128 modulo 256 is a flip of the top bit: no wider type needed.
            return torch.from_numpy(np.bitwise_xor(stored_ND, np.uint8(128)).view(np.int8))
        wide: NDArray[Any] = stored_ND.astype(np.float64 if stored_ND.itemsize > 4 else np.float32)
        out = torch.from_numpy((wide - self.centre).astype(np.float32))
        if not bool(torch.isfinite(out).all()):
            raise JstarError("images: hold NaN or infinite values, only finite numbers are allowed")
        return out

    def _flip(self, x_ND: torch.Tensor) -> torch.Tensor:
        return x_ND.reshape(-1, *self.shape).flip(-1).reshape(x_ND.shape)


def as_points(
    images: Any,
    *,
    scale: float | None = None,
    offset: float | None = None,
    mirror: bool = False,
    spread: Any = None,
) -> DataPoints:
    """Check `images` [N, ...] and wrap them as points. Raises JstarError, one sentence.

    uint8 images are scaled by default to [-1, 1] (offset 127.5, scale 1/127.5), floating-point
    images are taken as they are.
    """
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu().numpy()
    images = images if isinstance(images, np.ndarray) else np.asarray(images)
    if images.ndim < 2 or images.shape[0] == 0 or images[0].size == 0:
        raise JstarError(
            f"images: have shape {images.shape}, allowed is [N, ...] with N, D above 0"
        )
    integer = images.dtype == np.uint8
    if not integer and images.dtype.kind != "f":
        raise JstarError(f"images: are {images.dtype}, allowed are uint8 and floating point")
    default = (127.5, 1 / 127.5) if integer else (0.0, 1.0)
    offset, scale = default[0] if offset is None else offset, default[1] if scale is None else scale
    if not (np.isfinite(scale) and scale > 0 and np.isfinite(offset)):
        raise JstarError(
            f"scale = {scale:g}, offset = {offset:g}: not allowed, scale must be above 0"
        )
    if mirror and images.ndim < 3:
        raise JstarError(f"mirror: images of shape {images.shape} have no columns to mirror")
    flat = images.reshape(len(images), -1)
    centre = 128.0
    if not integer:
        sample = np.asarray(flat[:: max(1, len(flat) // 512)], dtype=np.float64)
        centre = float(sample.mean()) if np.isfinite(sample).all() else 0.0
    if spread is not None:
        spread = np.asarray(spread).reshape(len(spread), -1)  # stays on disk if it lies there
        if spread.shape != flat.shape:
            raise JstarError(f"spread: has shape {spread.shape}, the images have {flat.shape}")
        if integer or spread.dtype.kind != "f":
            raise JstarError("spread: must be floating point, and belong to float images")
    return DataPoints(flat, tuple(images.shape[1:]), centre, float(scale), mirror, None, spread)


def check_sigmas(sigmas: Any) -> NDArray[np.float64]:
    """Noise scales as float64 [S], increasing and positive, or JstarError."""
    sigma_S = np.atleast_1d(np.asarray(sigmas, dtype=np.float64))
    if sigma_S.ndim != 1 or len(sigma_S) == 0 or not np.isfinite(sigma_S).all():
        raise JstarError("sigmas: must be a list of finite numbers")
    if (sigma_S <= 0).any():
        raise JstarError(f"sigmas: {sigma_S.min():g} is not allowed, every sigma must be above 0")
    if (np.diff(sigma_S) <= 0).any():
        raise JstarError("sigmas: must be strictly increasing")
    return sigma_S
