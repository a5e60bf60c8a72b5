"""What a denoiser is held against: noisy draws of a dataset, their posterior means, and J*."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.config import OptimalConfig
from jstar.curve import OptimalLoss, read_curve
from jstar.data import Dataset, open_dataset
from jstar.data.card import Card, require_same
from jstar.diagnose.images import is_prepared, prepared_folder
from jstar.errors import JstarError
from jstar.noise import gaussian, sigma_grid
from jstar.optimal.oracle import Oracle, build_oracle, open_oracle
from jstar.optimal.stage import dataset_curve
from jstar.progress import Progress
from jstar.records import read_json

SIGMA_MIN, SIGMA_MAX, SIGMA_COUNT = 0.02, 80.0, 24  # of the grid, if nobody says otherwise
QUERIES, SEED = 1024, 1
CURVE_QUERIES = 4096
HELD_OUT_STREAM = 7_919  # their noise differs from the training draws' noise
MEAN_BLOCK = 4096  # images read at a time for the mean image


@dataclass(frozen=True)
class DrawOptions:
    """How many draws, at which noise scales; None: as found, or the defaults."""

    sigma_min: float | None = None
    sigma_max: float | None = None
    count: int | None = None
    queries: int | None = None
    seed: int | None = None

    def sigmas(self) -> list[float]:
        """The noise scales asked for, [S]."""
        low = SIGMA_MIN if self.sigma_min is None else self.sigma_min
        high = SIGMA_MAX if self.sigma_max is None else self.sigma_max
        count = SIGMA_COUNT if self.count is None else self.count
        if not 0 < low < high:
            raise JstarError(
                f"diagnose: --sigma-min {low:g} and --sigma-max {high:g} are not allowed, it must "
                "be 0 < min < max"
            )
        if count < 2:
            raise JstarError(f"diagnose: --sigmas {count} is not allowed, at least 2 are needed")
        return [float(s) for s in sigma_grid(low, high, count)]


@dataclass(frozen=True)
class Truth:
    """Draws x = x0 + sigma * noise of a dataset with their posterior means, and J*.

    labels_M: given to the denoiser, or None. mean_CHW: the mean image of the dataset.
    """

    card: Card
    oracle: Oracle
    x0_MCHW: NDArray[np.float32]
    noise_MCHW: NDArray[np.float32]
    labels_M: NDArray[np.int64] | None
    mean_CHW: NDArray[np.float32]
    optimal_S: NDArray[np.float64]
    optimal_se_S: NDArray[np.float64]

    def rows(self, low: float, high: float) -> list[int]:
        """Which of the oracle's noise scales lie between low and high. Raises JstarError."""
        inside = [s for s, sigma in enumerate(self.oracle.sigma) if low <= sigma <= high]
        if len(inside) < 2:
            raise JstarError(
                f"the denoiser was made for sigma = {low:g} to {high:g}, of the measured noise "
                f"scales ({self.oracle.sigma[0]:g} to {self.oracle.sigma[-1]:g}) only {len(inside)}"
                " lie there, at least 2 are needed"
            )
        return inside


@dataclass(frozen=True)
class UnseenDraws:
    """Noisy draws of images that were not trained on: x = x0 + sigma * noise."""

    x0_MCHW: NDArray[np.float32]
    noise_MCHW: NDArray[np.float32]
    labels_M: NDArray[np.int64] | None


def open_held_out(
    dataset: Path, images: Path | None, card: Card, *, prepared: Path
) -> Dataset | None:
    """`images`, or else the images that `jstar prepare` set aside of `dataset`, whose card it is.

    None where there are none. Raises JstarError where they are of another shape.
    """
    if images is None and not card.holdout:
        return None
    if images is None:
        held = open_dataset(dataset if is_prepared(dataset) else prepared, "holdout")
    else:
        held = open_dataset(prepared_folder(images, prepared))
    if held.card.shape != card.shape:
        raise JstarError(
            f"{images}: has images of shape {held.card.shape}, the training images have "
            f"{card.shape}"
        )
    return held


def unseen_draws(held: Dataset, truth: Truth) -> UnseenDraws:
    """Noisy draws of images that were not trained on, as many as of `truth`."""
    index_M = np.unique(np.linspace(0, len(held) - 1, len(truth.x0_MCHW)).round().astype(int))
    noise = gaussian(truth.oracle.seed + HELD_OUT_STREAM, index_M, truth.card.dim)
    return UnseenDraws(
        held.sampled(index_M, truth.oracle.seed, index_M),
        noise.reshape(len(index_M), *truth.card.shape),
        None if truth.labels_M is None else np.asarray(held.labels_N[index_M]),
    )


def open_truth(
    dataset: Path, optimal: Path, *, prepared: Path, conditional: bool, draws: DrawOptions
) -> Truth:
    """The truth of `dataset`: a folder that `jstar prepare` wrote, or what `images_config` reads.

    optimal: folder of curve.csv and oracle/ (as results/optimal/<dataset>); what is not there is
    computed and written there. prepared: where other images are prepared to. conditional: the
    denoiser is given labels, so that the posterior runs over the image's class. Raises JstarError.
    """
    folder = prepared_folder(dataset, prepared)
    data = open_dataset(folder)
    estimator = "exact_by_class" if conditional else "exact"
    if not (optimal / "oracle" / "oracle.json").is_file():
        _write_oracle(data, estimator, draws, optimal / "oracle")
    oracle = _checked_oracle(optimal / "oracle", data, folder, estimator, draws)
    curve_file = optimal / "curve.csv"
    if not curve_file.is_file():
        config = OptimalConfig(estimator=estimator, queries=CURVE_QUERIES)
        curve = dataset_curve(data, list(oracle.sigma), config, conditional)
        curve.write(curve_file, card_id=data.card.id, seed=config.seed, label_drop=0.0,
                    card=folder / "card.json")  # fmt: skip
    loss, stderr = _checked_curve(curve_file, data, folder, conditional).at(oracle.sigma)
    return Truth(
        card=data.card,
        oracle=oracle,
        x0_MCHW=oracle.x0(data),
        noise_MCHW=oracle.noise(),
        labels_M=data.labels_N[oracle.index_M] if conditional else None,
        mean_CHW=_mean_image(data),
        optimal_S=loss,
        optimal_se_S=stderr,
    )


def _write_oracle(data: Dataset, estimator: str, asked: DrawOptions, out: Path) -> None:
    points = len(data) * (2 if data.card.mirror else 1)
    queries = min(QUERIES if asked.queries is None else asked.queries, points)
    sigmas = asked.sigmas()
    with Progress(f"oracle {data.card.name}", len(sigmas) * queries, "draws") as bar:
        build_oracle(
            data,
            sigmas,
            queries=queries,
            seed=SEED if asked.seed is None else asked.seed,
            estimator=estimator,
            out=out,
            progress=bar.advance,
        )


def _checked_oracle(
    folder: Path, data: Dataset, where: Path, estimator: str, asked: DrawOptions
) -> Oracle:
    """The oracle set in `folder`, if it is of this dataset and of what is asked."""
    oracle, facts = open_oracle(folder), read_json(folder / "oracle.json")
    require_same(data.card.id, oracle.card_id, str(where), str(folder))
    points = len(data) * (2 if data.card.mirror else 1)
    sigma = oracle.sigma
    found: Sequence[tuple[str, object, object]] = (
        ("estimator", facts["estimator"], estimator),
        ("--sigma-min", f"{sigma[0]:g}", _short(asked.sigma_min)),
        ("--sigma-max", f"{sigma[-1]:g}", _short(asked.sigma_max)),
        ("--sigmas", len(sigma), asked.count),
        ("--queries", len(oracle.index_M), asked.queries and min(asked.queries, points)),
        ("--seed", oracle.seed, asked.seed),
    )
    for key, has, wanted in found:
        if wanted is not None and has != wanted:
            raise JstarError(
                f"{folder}/oracle.json: was made with {key} {has}, asked is {wanted}; leave it "
                "out, or give another folder as --optimal"
            )
    return oracle


def _checked_curve(path: Path, data: Dataset, where: Path, conditional: bool) -> OptimalLoss:
    """The curve in `path`, if it is of this dataset and of what the denoiser is told."""
    curve, facts = read_curve(path), read_json(path.with_suffix(".json"))
    require_same(data.card.id, facts.get("card_id", "?"), str(where), str(path))
    by_class = curve.estimator == "exact_by_class"
    if by_class != conditional or facts.get("label_drop"):
        told = "labels" if conditional else "no labels"
        raise JstarError(
            f"{path}: is the J* of estimator '{curve.estimator}' with label_drop = "
            f"{facts.get('label_drop', 0):g}, which does not fit a denoiser that is given {told}; "
            "give another folder as --optimal"
        )
    return curve


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _mean_image(data: Dataset) -> NDArray[np.float32]:
    """Mean of all images (and mirror images) in the data scale, [C, H, W]."""
    total = np.zeros(data.card.shape)
    for start in range(0, len(data), MEAN_BLOCK):
        total += data.scaled(slice(start, start + MEAN_BLOCK)).sum(axis=0, dtype=np.float64)
    mean = total / len(data)
    if data.card.mirror:
        mean = (mean + mean[..., ::-1]) / 2
    return mean.astype(np.float32)
