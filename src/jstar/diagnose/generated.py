"""`jstar diagnose --sample N`: images drawn with the very adapter that is diagnosed, and scored.

A score means little alone: as many training images, scored against the same held-out images, say
which value another draw of the data has.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jstar.config import SamplingConfig
from jstar.data import Dataset
from jstar.data.sheet import COLUMNS, draw_rows
from jstar.diagnose.adapters import Adapter, guarded
from jstar.errors import JstarError
from jstar.progress import Progress
from jstar.sampling.quality.distances import LEAST
from jstar.sampling.quality.reference import Reference, reference, reference_of
from jstar.sampling.quality.scores import SCORES, features_of, score, score_words
from jstar.sampling.stage import draw_features, draw_labels
from jstar.typeset import Rows

SHEET, DRAWN_ROWS = "samples.png", 5
FEWEST = 64  # images drawn, as of `sampling.count`
HELD_OUT, TRAINING = "held-out", "training"


@dataclass(frozen=True)
class SampleOptions:
    """How many images are drawn, and which features they are compared by (as of `reference`)."""

    count: int
    features: str = "classifier"

    def __post_init__(self) -> None:
        if self.count < FEWEST:
            raise JstarError(
                f"diagnose: --sample {self.count} is not allowed, at least {FEWEST} images are "
                "needed for a score"
            )


@dataclass(frozen=True)
class Target:
    """What drawn images are scored against.

    against: HELD_OUT or TRAINING images; images: how many. training: SCORES of as many training
    images as are drawn, where they are not what is scored against.
    """

    options: SampleOptions
    data: Dataset
    known: Reference
    against: str
    images: int
    training: dict[str, float] | None


@dataclass(frozen=True)
class Generated:
    """SCORES of the images drawn with a denoiser; none where it cannot be sampled: `failed`.

    first_MCHW: the first of them, to look at.
    """

    target: Target
    config: SamplingConfig
    scores: dict[str, float] | None
    failed: str = ""
    first_MCHW: NDArray[np.float32] | None = None

    def summary(self) -> str:
        """One sentence."""
        one, c = self.target, self.config
        if self.scores is None:
            return f"No images could be drawn with it ({self.failed})."
        text = (
            f"Against the {one.images:,} {one.against} images, {c.count:,} images drawn with it "
            f"({c.sampler}, {c.steps} steps) have {score_words(self.scores)} (features "
            f"{one.known.network.name})"
        )
        if one.training is None:
            return f"{text}; a denoiser that only remembers scores well here."
        return f"{text}; training images, as another draw of the data, {score_words(one.training)}."

    def sheet(self) -> Image.Image | None:
        """Images drawn with it above training images."""
        if self.first_MCHW is None:
            return None
        data = self.target.data
        spread = np.linspace(0, len(data) - 1, min(COLUMNS, len(data))).round().astype(int)
        drawn = self.first_MCHW[: DRAWN_ROWS * COLUMNS]
        rows = [("drawn", drawn[a : a + COLUMNS]) for a in range(0, len(drawn), COLUMNS)]
        return draw_rows([*rows, ("training", data.scaled(spread))], bool(data.card.latents))

    def facts(self) -> dict[str, Any]:
        """For diagnosis.json."""
        one, c = self.target, self.config
        return {
            "count": c.count, "against": one.against, "against_images": one.images,
            "features": one.known.network.name, "sampler": c.sampler, "steps": c.steps,
            "sigma_min": c.sigma_min, "sigma_max": c.sigma_max, "seed": c.seed,
            "scores": self.scores, "training_scores": one.training, "failed": self.failed,
        }  # fmt: skip

    def caption(self) -> str:
        """What the table of scores shows."""
        return f"Scores of images against the {self.target.images:,} {self.target.against} images."

    def as_rows(self) -> Rows:
        """The scores as a table."""
        sets = {"drawn": self.scores, "training images": self.target.training}
        return [
            ["images", *SCORES],
            *(
                [name, *(f"{found[s]:.4g}" for s in SCORES)]
                for name, found in sets.items()
                if found
            ),
        ]


def open_target(
    data: Dataset, held_out: Dataset | None, options: SampleOptions, folder: Path, device: str
) -> Target:
    """The target of a dataset: its held-out images, or else the training images.

    The features are learned from the training images and kept in `folder`. Raises JstarError.
    """
    against = data if held_out is None else held_out
    kind = TRAINING if held_out is None else HELD_OUT
    if len(against) < LEAST:
        raise JstarError(
            f"diagnose: --sample: there are {len(against)} {kind} images, at least {LEAST} are "
            "needed to score samples against"
        )
    learned = reference(data, options.features, folder, device)
    if held_out is None:
        return Target(options, data, learned, kind, len(against), None)
    known = reference_of(held_out, learned.network, device)
    training_NF = features_of(data, learned.network, device, options.count)
    return Target(options, data, known, kind, len(against), score(training_NF, known))


def draw_and_score(
    adapter: Adapter, target: Target, seed: int, conditional: bool, batch: int, device: str
) -> Generated:
    """Draw images with `adapter` at the noise scales it was made for, and score them.

    seed: of the start noise: the same seed, the same images, for every adapter and batch. A
    denoiser that sampling breaks is no error: its diagnosis says so.
    """
    usual = SamplingConfig()
    config = SamplingConfig(
        count=target.options.count, seed=seed, batch=batch,
        sigma_min=max(usual.sigma_min, adapter.sigma_min),
        sigma_max=min(usual.sigma_max, adapter.sigma_max),
    )  # fmt: skip
    labels_N = draw_labels(target.data, config) if conditional else None
    with Progress(f"sample {adapter.name}", config.count, "images") as bar:
        try:
            features_NF, first_MCHW = draw_features(
                target.data, target.known.network, guarded(adapter.denoise), config, config,
                labels_N, device, bar.advance,
            )  # fmt: skip
        except JstarError as error:
            return Generated(target, config, None, str(error))
    return Generated(target, config, score(features_NF, target.known), first_MCHW=first_MCHW)
