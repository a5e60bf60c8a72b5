"""What the card says of the images: hash, moments, duplicates, in one pass over the file."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.data.partial import ArrayWriter
from jstar.pool import in_order

BLOCK_BYTES = 4 << 20
ROWS = 64  # summed at a time: they fit the cache, and so many squares are exact in float32
PAIRS = 100  # named in the card


@dataclass(frozen=True)
class Survey:
    """Facts of one array, in its stored unit. channel_means: of each channel, over its pixels.

    `keys_N` are equal for equal images, and nearly always different for different ones.
    """

    sha256: str
    mean: float
    variance: float  # mean over dimensions of the variance over images
    mean_square: float
    low: float
    high: float
    channel_means: tuple[float, ...]
    keys_N: NDArray[np.uint64]


def survey(array: ArrayWriter, workers: int) -> Survey:
    """Read the array once, blocks in parallel. The same numbers whatever `workers` is."""
    count, dim = array.shape[0], int(np.prod(array.shape[1:]))
    keys = np.empty(count, np.uint64)
    total_D, square, low, high = np.zeros(dim), 0.0, np.inf, -np.inf
    digest = hashlib.sha256()
    block = max(1, BLOCK_BYTES // array.row)
    starts = range(0, count, block)
    with ThreadPoolExecutor(workers) as pool:
        tasks = ((_block_facts, array, at, min(block, count - at)) for at in starts)
        for at, (data, facts) in zip(starts, in_order(pool, tasks, workers), strict=True):
            digest.update(data)
            keys[at : at + len(facts[0])] = facts[0]
            total_D += facts[1]
            square += facts[2]
            low, high = min(low, facts[3]), max(high, facts[4])
    mean_D = total_D / count
    mean_square = square / (count * dim)
    variance = max(0.0, mean_square - float(np.square(mean_D).mean()))
    channels = mean_D.reshape(array.shape[1], -1).mean(axis=1)
    return Survey(
        digest.hexdigest(), float(mean_D.mean()), variance, mean_square, low, high,
        tuple(float(mean) for mean in channels), keys,
    )  # fmt: skip


def _block_facts(array: ArrayWriter, at: int, count: int) -> tuple[NDArray[Any], Any]:
    data = array.read(at, count)
    flat_ND = data.reshape(count, -1)
    extremes = float(flat_ND.min()), float(flat_ND.max())
    return data, (_keys(flat_ND), *_sums(flat_ND), *extremes)


def _keys(flat_ND: NDArray[Any]) -> NDArray[np.uint64]:
    """Multilinear hashes of the rows, modulo 2^64 (Lemire & Kaser 2014, arXiv 1202.4961)."""
    raw = flat_ND.view(np.uint8)
    if spare := -raw.shape[1] % 8:
        raw = np.pad(raw, ((0, 0), (0, spare)))
    words_NV = raw.view(np.uint64)
    odd_V = np.random.default_rng(0).integers(0, 2**63, words_NV.shape[1], np.uint64) * 2 + 1
    keys_N = np.empty(len(words_NV), np.uint64)
    for at in range(0, len(keys_N), ROWS):
        rows = slice(at, at + ROWS)
        # Folded first: the product alone would leave the low bits to the low bits.
        folded_NV = words_NV[rows] ^ (words_NV[rows] >> np.uint64(32))
        keys_N[rows] = np.einsum("nw,w->n", folded_NV, odd_V)
    return keys_N


def _sums(flat_ND: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    """Sum over images [D] and sum of all squares; exact for 8-bit values, in whatever order."""
    if flat_ND.dtype != np.uint8:
        values_ND = flat_ND.astype(np.float64)
        return values_ND.sum(axis=0), float(np.einsum("nd,nd->", values_ND, values_ND))
    total_D, square = np.zeros(flat_ND.shape[1]), 0.0
    for at in range(0, len(flat_ND), ROWS):
        part = flat_ND[at : at + ROWS].astype(np.float32)
        total_D += part.sum(axis=0)
        square += float(np.einsum("nd,nd->d", part, part).sum(dtype=np.float64))
    return total_D, square


@dataclass(frozen=True)
class Duplicates:
    """Images that equal an earlier one, and the first pairs (image, earlier one)."""

    count: int
    pairs: tuple[tuple[int, int], ...]


def duplicates(array: ArrayWriter, keys_N: NDArray[np.uint64]) -> Duplicates:
    """Images of `array` equal to an earlier one; candidates by key, then compared exactly."""
    first: dict[bytes, int] = {}
    pairs = []
    for at in _repeated(keys_N):
        earlier = first.setdefault(_digest(array, at), at)
        if earlier != at:
            pairs.append((at, earlier))
    return Duplicates(len(pairs), tuple(pairs[:PAIRS]))


def shared(
    held: ArrayWriter, held_keys: NDArray[np.uint64], train: ArrayWriter, keys: NDArray[np.uint64]
) -> int:
    """Number of held-out images that stand in the training images as well."""
    common = np.intersect1d(held_keys, keys)
    known = {_digest(train, int(at)) for at in np.flatnonzero(np.isin(keys, common))}
    at_held = np.flatnonzero(np.isin(held_keys, common))
    return sum(_digest(held, int(at)) in known for at in at_held)


def _repeated(keys_N: NDArray[np.uint64]) -> Iterator[int]:
    """Positions, increasing, of all values that occur more than once."""
    _, inverse, counts = np.unique(keys_N, return_inverse=True, return_counts=True)
    yield from (int(at) for at in np.flatnonzero(counts[inverse] > 1))


def _digest(array: ArrayWriter, at: int) -> bytes:
    return hashlib.sha256(array.read(at, 1).data).digest()
