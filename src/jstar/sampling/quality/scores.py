"""The scores of one set of images against another, and of two datasets as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.constants import NORMAL_95
from jstar.data import Dataset
from jstar.errors import JstarError
from jstar.records import provenance, write_table
from jstar.sampling.quality.distances import LEAST, fid, kid, precision_recall
from jstar.sampling.quality.features import SEED, FeatureNetwork
from jstar.sampling.quality.reference import Reference, reference

SCORES = (
    "fid", "fid_low", "fid_high", "kid", "kid_se", "precision", "recall", "precision_se",
    "recall_se",
)  # fmt: skip
COMPARED = ("generated", "real", "images", "real_images", "features", *SCORES)
PART = 8192  # images in memory at a time


def score(features_NF: NDArray[np.float32], known: Reference) -> dict[str, float]:
    """SCORES of generated features [N, F]: FID with its 95 % interval, the rest with errors."""
    frechet, mmd = fid(features_NF, known.moments), kid(features_NF, known.features_MF)
    precision, recall = precision_recall(features_NF, known.features_MF)
    reach = NORMAL_95 * frechet.se
    return {
        "fid": frechet.value,
        "fid_low": max(frechet.value - reach, 0.0),
        "fid_high": frechet.value + reach,
        "kid": mmd.value,
        "kid_se": mmd.se,
        "precision": precision.value,
        "recall": recall.value,
        "precision_se": precision.se,
        "recall_se": recall.se,
    }


def features_of(
    dataset: Dataset, network: FeatureNetwork, device: str = "cpu", count: int | None = None
) -> NDArray[np.float32]:
    """Features [N, F] of all images of a dataset, or of `count` of them, evenly spread."""
    count = len(dataset) if count is None else min(count, len(dataset))
    index_N = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    parts = [index_N[a : a + PART] for a in range(0, count, PART)]
    return np.concatenate([network(dataset.sampled(p, SEED, p), device) for p in parts])


def write_scores(
    generated: Dataset, real: Dataset, features: str, out: Path, device: str = "cpu"
) -> pd.DataFrame:
    """Score one set of images against another and write `out`/comparison.csv.

    features: as of `reference`, a classifier learns the labels of `real`. Raises JstarError where
    the images differ in shape or scale, or are too few.
    """
    one, other = generated.card, real.card
    kinds = [(c.shape, c.dtype, c.scale, c.offset) for c in (one, other)]
    if kinds[0] != kinds[1]:
        what = [f"{kind} of shape {shape} times {by:.3g}" for shape, kind, by, _ in kinds]
        raise JstarError(
            f"sampling quality: the generated images are {what[0]}, the real ones {what[1]}; "
            "they must be alike"
        )
    for card in (one, other):
        if card.count < LEAST:
            raise JstarError(
                f"sampling quality: '{card.name}' has {card.count} images, at least {LEAST} are "
                "needed"
            )
    known = reference(real, features, out / "features", device)
    found = score(features_of(generated, known.network, device), known)
    row = (one.name, other.name, one.count, other.count, known.network.name)
    frame = pd.DataFrame([[*row, *found.values()]], columns=list(COMPARED))
    facts = provenance(
        card_id=one.id,
        real_card_id=other.id,
        features=known.network.name,
        accuracy=known.network.accuracy,
        kid_precision_recall_of=len(known.features_MF),
        intervals="95 %, jackknife over generated images",
    )
    write_table(out / "comparison.csv", frame, facts)
    return frame


def score_words(row: Mapping[Any, Any] | pd.Series) -> str:
    """The scores of a row, or of `score`, in one line."""
    return (
        f"FID {row['fid']:.4g} ({row['fid_low']:.4g} to {row['fid_high']:.4g}), "
        f"KID {row['kid']:.3g} ± {row['kid_se']:.1g}, "
        f"precision {row['precision']:.3f} ± {row['precision_se']:.3f}, "
        f"recall {row['recall']:.3f} ± {row['recall_se']:.3f}"
    )
