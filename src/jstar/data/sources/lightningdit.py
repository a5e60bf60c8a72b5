"""LightningDiT's safetensors shards: latents, latents_flip and labels of 10,000 images each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.sources.base import (
    Job,
    Reader,
    Rows,
    Shape,
    Source,
    damaged,
    first_line,
    regular_files,
    same_length,
    source_path,
    stamp,
)
from jstar.data.sources.labels import NO_CLASS, class_fact, without_labels
from jstar.data.sources.latents import DRAWS, FLIPPED, Scaling, latent_rows
from jstar.errors import JstarError

PLAIN, FLIP, LABELS = "latents", "latents_flip", "labels"
STATS = "latents_stats.pt"  # mean and deviation of each channel, which LightningDiT trains with
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Shard:
    """One file, its header read. `count` images, of `shape`."""

    path: Path
    count: int
    shape: Shape
    flips: bool

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Raises JstarError unless it holds latents as floats [N, C, H, W]."""
        with _open(path) as file:
            names = list(file.keys())
            if PLAIN not in names:
                raise JstarError(f"{path}: holds no '{PLAIN}', found are {', '.join(names)}")
            shapes = [_checked(path, file, name) for name in (PLAIN, FLIP) if name in names]
        if len(set(shapes)) > 1:
            raise JstarError(f"{path}: {PLAIN} and {FLIP} have other shapes, {shapes[0]} and "
                             f"{shapes[1]}")  # fmt: skip
        count, channels, rows, columns = shapes[0]
        return cls(path, count, (channels, rows, columns), FLIP in names)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows start..stop of an array: floats as float32, labels as they are."""
        with _open(self.path) as file:
            if name not in file.keys():  # noqa: SIM118 (it has no __contains__)
                raise JstarError(f"{self.path}: holds no '{name}'")
            # NumPy has no bfloat16; torch is asked for that alone, it takes seconds to import.
            wide = file.get_slice(name).get_dtype() == "BF16"
            if not wide:
                return np.asarray(file.get_slice(name)[start:stop])
        with _open(self.path, "pt") as file:
            return np.asarray(file.get_slice(name)[start:stop].float().numpy())

    def labels(self) -> NDArray[np.int64]:
        """Raises JstarError unless they are one class an image, from 0 on."""
        labels = self.read(LABELS)
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise JstarError(f"{self.path}: {LABELS} are {labels.dtype} of shape {labels.shape}, "
                             "allowed are integers [N]")  # fmt: skip
        same_length(self.path, self.count, len(labels))
        if not 0 <= int(labels.min()) <= int(labels.max()) < 1 << 63:
            raise JstarError(f"{self.path}: holds a label that is no class, allowed are integers "
                             "from 0")  # fmt: skip
        return labels.astype(np.int64)


def _open(path: Path, framework: str = "np") -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError) as error:
        raise damaged(path, error, "a safetensors file") from error


def _checked(path: Path, file: Any, name: str) -> tuple[int, int, int, int]:
    facts = file.get_slice(name)
    shape, kind = tuple(facts.get_shape()), facts.get_dtype()
    if len(shape) != 4 or min(shape) < 1 or kind not in FLOATS:
        raise JstarError(
            f"{path}: {name} are {kind} of shape {shape}, allowed are {', '.join(FLOATS)} "
            "[N, C, H, W], no axis empty"
        )
    return shape


@dataclass(frozen=True)
class ShardJob:
    """Read and scale the rows start..stop of a shard; with flips each image has two."""

    shard: Shard
    start: int
    stop: int
    labels_B: NDArray[np.int64]
    scaling: Scaling
    both: bool

    def __len__(self) -> int:
        return self.stop - self.start

    def __call__(self) -> Rows:
        each = 2 if self.both else 1
        low, high = self.start // each, -(-self.stop // each)
        parts = [self.shard.read(name, low, high) for name in (PLAIN, FLIP)[:each]]
        pairs = np.stack(parts, axis=1).reshape(-1, *self.shard.shape).astype(np.float32)
        rows = pairs[self.start - each * low : self.stop - each * low]
        where = f"{self.shard.path}, image {low} on"
        return latent_rows(rows, None, self.labels_B, self.scaling, where)


def _shards(config: DatasetConfig) -> list[Shard]:
    path = source_path(config)
    files = [path] if path.is_file() else regular_files(path, "*.safetensors")
    if not files:
        raise JstarError(f"{path}: holds no .safetensors file")
    shards = [Shard.open(file) for file in files]
    for shard in shards:
        if shard.shape != shards[0].shape:
            raise JstarError(
                f"{shard.path}: has latents of shape {shard.shape}, {shards[0].path.name} "
                f"{shards[0].shape}"
            )
        if config.mirror and not shard.flips:
            raise JstarError(f"dataset.mirror: {shard.path} holds no '{FLIP}'")
    return shards


def _scaling(config: DatasetConfig, first: Shard) -> Scaling:
    """The study's, else that of latents_stats.pt. Raises JstarError where there is neither."""
    folder = first.path.parent
    channels = first.shape[0]
    if config.channel_mean is not None:
        return Scaling().of(config, channels)
    if not (folder / STATS).is_file():
        values = first.read(PLAIN, 0, min(256, first.count)).astype(np.float64)
        mean, std = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
        raise JstarError(
            f"{folder}: lacks {STATS}; dataset.channel_mean and channel_std say how the latents "
            f"are scaled, of the first {len(values)} they are {_list(mean)} and {_list(std)}"
        )
    return Scaling(*_stats(folder / STATS)).of(config, channels)


def _list(values: NDArray[np.float64]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"


def _stats(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        mean, std = (
            tuple(float(value) for value in found[key].double().flatten())
            for key in ("mean", "std")
        )
    except Exception as error:  # whatever a damaged or hostile pickle makes torch raise
        raise JstarError(
            f"{path}: must hold the tensors 'mean' and 'std' ({first_line(error)})"
        ) from error
    if not all(np.isfinite(mean)) or not all(0 < value < np.inf for value in std):
        raise JstarError(f"{path}: a mean is not finite, or a deviation not above 0")
    return mean, std


def open_lightningdit(config: DatasetConfig) -> Source:
    """The shards in the order of their names; with mirror each latent, then its flipped one."""
    shards = _shards(config)
    scaling = _scaling(config, shards[0])
    each = 2 if config.mirror else 1
    total = sum(shard.count for shard in shards)
    if config.labels == "none":
        labels_N, _ = without_labels(total * each)
    else:
        labels_N = np.repeat(np.concatenate([shard.labels() for shard in shards]), each)

    def jobs(start: int, stop: int, block: int) -> Iterator[Job]:
        first = 0
        for shard in shards:
            rows = shard.count * each
            low, high = max(start - first, 0), min(stop - first, rows)
            for at in range(low, high, block):
                end = min(at + block, high)
                labels_B = labels_N[first + at : first + end]
                yield ShardJob(shard, at, end, labels_B, scaling, config.mirror)
            first += rows

    return Source(
        count=total * each, shape=shards[0].shape, jobs=jobs,
        identity=[stamp(shard.path) for shard in shards],
        dtype="float16", offset=0.0, scale=config.latent_std,
        classes=1 if config.labels == "none" else None,
        facts=class_fact(NO_CLASS if config.labels == "none" else f"'{LABELS}' of the shards"),
        labels=lambda: labels_N,
        latents=FLIPPED if config.mirror else DRAWS,
        channel_mean=scaling.mean, channel_std=scaling.std, parallel=True,
    )  # fmt: skip


def glance_lightningdit(config: DatasetConfig) -> tuple[int, Shape]:
    shards = _shards(config)
    return sum(s.count for s in shards) * (2 if config.mirror else 1), shards[0].shape


LIGHTNINGDIT = Reader(
    open_lightningdit,
    glance_lightningdit,
    frozenset({"channel_mean", "latent_std"}),
    ("none",),
    "give the folder of .safetensors files that LightningDiT's extract_features.py wrote",
    flips=True,
)
