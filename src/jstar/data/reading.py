"""The reading report: what was recognised, read and left out, of a card or before prepare."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jstar.config import DatasetConfig
from jstar.data.card import Card
from jstar.data.classes import images_a_class, require_range
from jstar.data.image import UNAPPLIED
from jstar.data.prepare import split_of
from jstar.data.sources import Rows, Shape, Source, present
from jstar.data.vae import with_vae
from jstar.errors import JstarError

SAMPLE, BLOCKS = 256, 8  # images that are decoded, in so many places of the set
TOLERANCE = 1.25  # factor between the deviation of latents and what is asked for
SHIFT = 0.5  # deviations that the mean of a channel of latents may be off 0


@dataclass(frozen=True)
class Values:
    """Values in the data scale of `sample` images; None: of all that are trained on."""

    sample: int | None
    low: float
    high: float
    mean: float
    std: float
    channel_means: tuple[float, ...]


@dataclass(frozen=True)
class Reading:
    """Facts of a dataset. equal: images that equal an earlier one, held-out ones that are trained
    on as well; None where that is not known yet. latent_std: what the deviation of latents should
    be, None of pixels."""

    title: str
    shape: Shape
    dtype: str
    facts: tuple[tuple[str, str], ...]
    train: int
    held_out: int
    classes: int
    images_a_class: tuple[int, int, int]
    values: Values
    traits: Mapping[str, int]
    equal: tuple[int, int] | None
    left_out: tuple[tuple[str, int], ...]
    latent_std: float | None

    def lines(self, sigma_data: float | None = None) -> list[str]:
        """For the user, a fact a line; sigma_data: the study's train.sigma_data."""
        few, median, many = self.images_a_class
        of = "all" if self.values.sample is None else f"{self.values.sample}"
        found = [self.title, *(f"{name}: {value}" for name, value in self.facts)]
        found.append(
            f"images: {self.train} to train on, {self.held_out} held out; "
            f"{list(self.shape)} {self.dtype}"
        )
        if many:
            found.append(
                f"classes: {self.classes}; images of one: {few} at least, {median} in the median, "
                f"{many} at most"
            )
        stated = "" if sigma_data is None else f" (train.sigma_data: {sigma_data:g})"
        found.append(
            f"values of {of} of them in the model's data scale: {self.values.low:.3g} to "
            f"{self.values.high:.3g}, mean {self.values.mean:.3g}, deviation "
            f"{self.values.std:.3g}{stated}"
        )
        modes = {name: n for name, n in self.traits.items() if name not in UNAPPLIED}
        for what, counts in (
            ("colours converted", modes),
            ("stated by files, not applied", {n: self.traits.get(n, 0) for n in UNAPPLIED}),
        ):
            if any(counts.values()):
                each = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if n)
                found.append(f"{what}, of {of}: {each}")
        if self.equal is not None:
            twins, shared = self.equal
            held = f"; {shared} held-out ones are trained on as well" if self.held_out else ""
            found.append(f"equal images: {twins} equal an earlier one{held}")
        for reason, count in self.left_out:
            found.append(f"left out: {count} files, {reason or 'without a suffix'}")
        return [*found, *self.warnings()]

    def warnings(self) -> list[str]:
        """Sentences where latents are not scaled as their source states; none of pixels."""
        if self.latent_std is None:
            return []
        remedy = "dataset.channel_mean and channel_std are to scale them"
        found = []
        if not 1 / TOLERANCE < self.values.std / self.latent_std < TOLERANCE:
            found.append(
                f"warning: the latents have the deviation {self.values.std:.3g}, "
                f"dataset.latent_std says {self.latent_std:g}; {remedy}"
            )
        if max(map(abs, self.values.channel_means), default=0) > SHIFT * self.latent_std:
            means = ", ".join(f"{mean:.3g}" for mean in self.values.channel_means)
            found.append(
                f"warning: the channels of the latents have the means [{means}], not near 0, so "
                f"they are not of the encoder whose scaling was taken; {remedy}"
            )
        return found


def reading_of(card: Card) -> Reading:
    """The report of a prepared dataset."""
    values = Values(None, card.low, card.high, card.mean, card.std, card.channel_means)
    return Reading(
        title=_title(card.name, card.origin, card.source), shape=card.shape, dtype=card.dtype,
        facts=_latents(card.latents) + card.facts, train=card.count, held_out=card.holdout,
        classes=card.classes, images_a_class=card.images_a_class, values=values,
        traits=dict(card.traits), equal=(card.duplicates, card.holdout_duplicates),
        left_out=card.left_out, latent_std=card.scale if card.latents else None,
    )  # fmt: skip


def read_sample(config: DatasetConfig) -> Reading:
    """Open the source and decode some images, spread over it.

    Raises JstarError as prepare does, for what the names, headers, labels and these images show.
    """
    chosen = present(config)
    if chosen.free and config.path is None:
        raise JstarError(f"dataset.path: is missing, '{config.source}' would be downloaded first")
    source = with_vae(chosen.open(config), config)
    split = split_of(config, source.count)
    labels_N = source.labels()
    require_range(labels_N, source.classes, f"dataset '{config.name}'")
    labels_N = split.train_rows(labels_N)
    classes = max(source.classes or 0, int(labels_N.max()) + 1)
    rows = _sample(source, split.total)
    traits: Counter[str] = Counter()
    for part in rows:
        traits.update(part.traits)
    return Reading(
        title=_title(config.name, config.path or "", config.source), shape=source.shape,
        dtype=source.dtype, facts=_latents(source.latents) + source.facts, train=split.train,
        held_out=len(split.held_out), classes=classes,
        images_a_class=images_a_class(labels_N, classes), values=_values(source, rows),
        traits=traits, equal=None, left_out=source.left_out,
        latent_std=config.latent_std if source.latents else None,
    )  # fmt: skip


def _title(name: str, path: str, source: str) -> str:
    return f"dataset '{name}': {path or 'no file'}, read as {source}"


def _latents(kind: str) -> tuple[tuple[str, str], ...]:
    return (("latents", kind),) if kind else ()


def _values(source: Source, rows: list[Rows]) -> Values:
    values = np.concatenate([r.images_BCHW for r in rows]).astype(np.float64)
    values = (values - source.offset) * source.scale
    variance = float(values.var())
    if source.sampled:
        stds = np.concatenate([r.stds_BCHW for r in rows if r.stds_BCHW is not None])
        variance += float(np.square(stds.astype(np.float64)).mean()) * source.scale**2
    means = tuple(float(mean) for mean in values.mean(axis=(0, 2, 3)))
    return Values(
        len(values), float(values.min()), float(values.max()), float(values.mean()),
        float(np.sqrt(variance)), means,
    )  # fmt: skip


def _sample(source: Source, total: int) -> list[Rows]:
    """Whole blocks, evenly spread; all of a small set."""
    block = min(SAMPLE // BLOCKS, total)
    starts = sorted({int(at) for at in np.linspace(0, total - block, BLOCKS)})
    found, done = [], 0
    for start in starts:
        start = max(start, done)
        done = start + block
        for job in source.jobs(start, min(done, total), block):
            rows = job()
            found.append(source.finish(rows) if source.finish else rows)
    return found
