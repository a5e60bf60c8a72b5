"""The prepare stage: from a source to images.npy, labels.npy and card.json.

Fill (decode and write, a shard at a time, resumable), survey (hash, moments, duplicates), publish
(rename, the card last: a folder without card.json is not a dataset).
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.config import DatasetConfig
from jstar.data.card import Card
from jstar.data.classes import images_a_class, require_range
from jstar.data.download import fetch
from jstar.data.image import UNAPPLIED
from jstar.data.partial import SHEET, ArrayWriter, Partial, ResumableError
from jstar.data.sheet import draw_sheet
from jstar.data.sources import Job, Rows, Source, paired, present
from jstar.data.sources.base import tree_stamp
from jstar.data.store import Dataset
from jstar.data.survey import Survey, duplicates, shared, survey
from jstar.data.vae import with_vae
from jstar.errors import JstarError
from jstar.pool import cpu_count, in_order, process_pool
from jstar.progress import Progress
from jstar.records import fingerprint

LAYOUT = 2  # of the partial folder: another number does not resume
BLOCK_BYTES = 4 << 20  # decoded at a time by one worker
SHARD_BYTES = 64 << 20  # between two entries of the journal
POOL_IMAGES = 2_000  # fewer are decoded at once in this process


def prepare(
    config: DatasetConfig,
    out: str | Path,
    *,
    workers: int | None = None,
    shard: int | None = None,
) -> Card:
    """Read `config.source`, write the store to the folder `out`, return its card.

    workers: processes that decode; default: the CPUs this process may use.
    shard: images between two entries of the journal; default: 64 MiB of them.

    Killed at any moment it goes on, when called again, from the last entry of the journal, to the
    same bytes. Raises JstarError for input that cannot be used, and leaves nothing behind then.
    """
    out, workers = Path(out), workers or cpu_count()
    chosen = present(config)
    if chosen.free and config.path is None:
        config = config.model_copy(update={"path": str(fetch(config.source))})
    stamp = tree_stamp(Path(config.path)) if config.path else ""  # before anything is read of it
    _check_sum(config)
    with ExitStack() as stack:
        # The workers are made before the index of perhaps a million files is in memory.
        pool = None
        if chosen.decodes and workers > 1:
            pool = stack.enter_context(process_pool(workers))
        partial = stack.enter_context(Partial(out))
        source = with_vae(chosen.open(config), config)
        split = split_of(config, source.count)
        require_range(source.labels(), source.classes, f"dataset '{config.name}'")
        partial.open(_key(config, source, stamp), _arrays(split, source))
        _fill(partial, source, split, config.name, workers, shard, pool)
        card = _card(partial, config, source, split, workers, stamp)
        partial.publish()
        _save_sheet(card, out)
        card.save(out / "card.json")
        partial.remove()
    return card


# --- what goes where ------------------------------------------------------------------------------


Place = tuple[NDArray[np.bool_], int, int]  # which rows are held out, first row of each kind


@dataclass(frozen=True)
class Split:
    """Which images of the source are held out: spread evenly over it, so that a set sorted by
    class keeps its proportions."""

    total: int
    held_out: NDArray[np.int64]  # increasing

    def train_rows(self, values_N: NDArray[Any]) -> NDArray[Any]:
        """Of one value an image of the source, those of the images that are trained on."""
        return np.delete(values_N[: self.total], self.held_out)

    @property
    def train(self) -> int:
        return self.total - len(self.held_out)

    def place(self, start: int, stop: int) -> Place:
        """For the images start..stop: which are held out, and the first row of each kind."""
        low, high = np.searchsorted(self.held_out, [start, stop])
        held = np.zeros(stop - start, dtype=bool)
        held[self.held_out[low:high] - start] = True
        return held, start - int(low), int(low)


def split_of(config: DatasetConfig, count: int) -> Split:
    """The split of a source of `count` images. Raises JstarError if it leaves too few.

    Where each image is followed by its mirrored one, `limit` and `holdout` count such pairs.
    """
    each = 2 if paired(config) else 1
    total = min(count // each, config.limit or count)
    if total - config.holdout < 2:
        raise JstarError(
            f"dataset.holdout = {config.holdout}: leaves {total - config.holdout} of {total} "
            f"images of '{config.name}' to train on, at least 2 needed"
        )
    held = np.arange(config.holdout, dtype=np.int64) * total // max(config.holdout, 1)
    return Split(total * each, (held[:, None] * each + np.arange(each)).ravel())


def _arrays(split: Split, source: Source) -> dict[str, tuple[tuple[int, ...], str]]:
    """File name -> (shape, dtype) of everything that is written."""
    arrays: dict[str, tuple[tuple[int, ...], str]] = {}
    for prefix, count in (("", split.train), ("holdout_", len(split.held_out))):
        if count:
            arrays[f"{prefix}images.npy"] = ((count, *source.shape), source.dtype)
            arrays[f"{prefix}labels.npy"] = ((count,), "int64")
            if source.sampled:
                arrays[f"{prefix}stds.npy"] = ((count, *source.shape), source.dtype)
    return arrays


def _key(config: DatasetConfig, source: Source, stamp: str) -> str:
    """What a half-written dataset must agree on to be continued."""
    return fingerprint([LAYOUT, config.model_dump(mode="json"), source.identity, stamp])


def _check_sum(config: DatasetConfig) -> None:
    """Compare the file at `path` with dataset.sha256. Raises JstarError."""
    if config.sha256 is None:
        return
    path = Path(config.path or "")
    if not path.is_file():
        raise JstarError(f"dataset.sha256: {path} is no file, only a file has a checksum")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != config.sha256:
        raise JstarError(
            f"{path}: has the sha256 {found}, dataset.sha256 says {config.sha256}; "
            "it is damaged or another file"
        )


# --- fill -----------------------------------------------------------------------------------------


def _fill(
    partial: Partial,
    source: Source,
    split: Split,
    name: str,
    workers: int,
    shard: int | None,
    pool: Executor | None,
) -> None:
    """Write all images from the first that is not safe yet."""
    row = source.decoded_bytes or int(np.prod(source.shape)) * np.dtype(source.dtype).itemsize
    block = max(1, min(BLOCK_BYTES // row, 4096, shard or SHARD_BYTES // row))
    # Whole blocks only: where a VAE encodes, a resumed run must see the same batches.
    step = max(block, (shard or SHARD_BYTES // row) // block * block)
    at, traits = partial.done, Counter(partial.traits)
    with Progress(f"prepare {name}", split.total, "images") as bar:
        bar.resume(at)
        for written in _stored(partial.arrays, source, split, at, block, workers, pool):
            done = at + written.count
            bar.advance(written.count)
            traits.update(written.traits)
            if done // step > at // step or done == split.total:
                partial.record(done, Counter(traits))
            at = done
    if at != split.total:
        raise JstarError(f"dataset '{name}': has {at} images, {split.total} were promised")


@dataclass(frozen=True)
class Written:
    """What became of one job's rows."""

    count: int
    traits: Mapping[str, int]


def _stored(
    arrays: dict[str, ArrayWriter],
    source: Source,
    split: Split,
    start: int,
    block: int,
    workers: int,
    pool: Executor | None,
) -> Iterator[Written]:
    """Decode and write the images from `start` on, in order.

    Worker processes, where they pay, write what they decode: pixels do not travel between
    processes.
    """
    jobs = source.jobs(start, split.total, block)
    if pool is None or not source.parallel or split.total - start < POOL_IMAGES:
        yield from _stored_here(arrays, source, split, start, jobs)
        return

    def tasks() -> Iterator[tuple[Any, ...]]:
        at = start
        for job in jobs:
            place = split.place(at, at + len(job))
            at += len(job)
            if source.finish is None:
                yield _run_and_write, job, arrays, place
            else:
                yield _run, job

    at = start
    try:
        for found in in_order(pool, tasks(), workers):
            if isinstance(found, Rows):
                place = split.place(at, at + len(found.labels_B))
                found = _write(arrays, source.finish(found) if source.finish else found, place)
            at += found.count
            yield found
    except BrokenProcessPool as error:
        raise ResumableError(
            "prepare: a decoding process was killed, probably for lack of memory; "
            "run it again, it goes on where it was"
        ) from error


def _stored_here(
    arrays: dict[str, ArrayWriter], source: Source, split: Split, at: int, jobs: Iterator[Job]
) -> Iterator[Written]:
    for job in jobs:
        rows = source.finish(job()) if source.finish else job()
        yield _write(arrays, rows, split.place(at, at + len(job)))
        at += len(job)


def _run(job: Job) -> Rows:
    return job()


def _run_and_write(job: Job, arrays: dict[str, ArrayWriter], place: Place) -> Written:
    return _write(arrays, job(), place)


def _write(arrays: dict[str, ArrayWriter], rows: Rows, place: Place) -> Written:
    held_B, train_at, held_at = place
    parts: dict[str, NDArray[Any] | None] = {
        "images": rows.images_BCHW, "labels": rows.labels_B, "stds": rows.stds_BCHW,
    }  # fmt: skip
    for stem, values in parts.items():
        if values is None:
            continue
        if not held_B.any():
            arrays[f"{stem}.npy"].write(train_at, values)
            continue
        arrays[f"holdout_{stem}.npy"].write(held_at, values[held_B])
        if not held_B.all():
            arrays[f"{stem}.npy"].write(train_at, values[~held_B])
    return Written(len(rows.labels_B), rows.traits)


def _save_sheet(card: Card, out: Path) -> None:
    """Write the page of samples. Raises JstarError."""
    labels = np.load(out / "labels.npy")
    dataset = Dataset(card, np.load(out / "images.npy", mmap_mode="r"), labels)
    try:
        draw_sheet(dataset).save(out / SHEET)
    except OSError as error:
        raise ResumableError(f"{out / SHEET}: cannot be written ({error.strerror})") from error


# --- card -----------------------------------------------------------------------------------------


def _card(
    partial: Partial,
    config: DatasetConfig,
    source: Source,
    split: Split,
    workers: int,
    stamp: str,
) -> Card:
    """Survey the written arrays and describe them."""
    arrays = partial.arrays
    facts = survey(arrays["images.npy"], workers)
    twins = duplicates(arrays["images.npy"], facts.keys_N)
    if twins.count == split.train - 1 and not source.sampled:
        raise JstarError(
            f"dataset '{config.name}': all {split.train} images are equal, at least 2 different "
            "ones are needed (of one point J* is 0)"
        )
    labels_N = arrays["labels.npy"].read(0, split.train)
    largest, repeated, sums = int(labels_N.max()), 0, {}
    if "holdout_images.npy" in arrays:
        held = arrays["holdout_images.npy"]
        held_facts = survey(held, workers)
        repeated = shared(held, held_facts.keys_N, arrays["images.npy"], facts.keys_N)
        held_labels = arrays["holdout_labels.npy"].read(0, len(split.held_out))
        largest = max(largest, int(held_labels.max()))
        sums["images"] = held_facts.sha256
        sums["labels"] = hashlib.sha256(held_labels.tobytes()).hexdigest()
        if source.sampled:
            sums["stds"] = survey(arrays["holdout_stds.npy"], workers).sha256
    spread = survey(arrays["stds.npy"], workers) if source.sampled else None
    classes = max(source.classes or 0, largest + 1)
    return Card(
        name=config.name,
        source=config.source,
        count=split.train,
        shape=source.shape,
        dtype=source.dtype,
        offset=source.offset,
        scale=source.scale,
        classes=classes,
        mirror=config.mirror and not paired(config),
        holdout=len(split.held_out),
        duplicates=twins.count,
        mean=(facts.mean - source.offset) * source.scale,
        std=_std(facts, spread) * source.scale,
        images_sha256=facts.sha256,
        labels_sha256=hashlib.sha256(labels_N.tobytes()).hexdigest(),
        license=source.license,
        citation=source.citation,
        origin=config.path or "",
        converted=sum(n for name, n in partial.traits.items() if name not in UNAPPLIED),
        duplicate_pairs=twins.pairs,
        holdout_duplicates=repeated,
        sampled=source.sampled,
        stds_sha256=spread.sha256 if spread else "",
        channel_mean=source.channel_mean,
        channel_std=source.channel_std,
        encoder=source.encoder,
        latents=source.latents,
        left_out=source.left_out,
        low=(facts.low - source.offset) * source.scale,
        high=(facts.high - source.offset) * source.scale,
        channel_means=tuple((m - source.offset) * source.scale for m in facts.channel_means),
        images_a_class=images_a_class(labels_N, classes),
        traits=tuple(sorted(partial.traits.items())),
        facts=source.facts,
        holdout_sha256=tuple(sums.items()),
        source_stamp=stamp,
    )


def _std(facts: Survey, spread: Survey | None) -> float:
    """Root of the mean over dimensions of the variance; sampled latents add their own."""
    return float(np.sqrt(facts.variance + (spread.mean_square if spread else 0.0)))
