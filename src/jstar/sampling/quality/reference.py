"""The reference of a dataset: feature network, moments of all images, features of some. Once."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.data import Dataset
from jstar.data.card import require_same
from jstar.errors import JstarError
from jstar.records import provenance, read_json, require_intact, write_atomically, write_record
from jstar.sampling.quality.distances import FeatureMoments, feature_moments, merged_moments
from jstar.sampling.quality.features import (
    SEED,
    FeatureNetwork,
    load_classifier,
    load_script,
    train_classifier,
)

CHUNK = 8192
KEPT = 10_000  # features kept for KID, precision and recall
CLASSIFIER = "classifier"
PIXELS = "pixels"  # the values themselves, in the data scale


@dataclass(frozen=True)
class Reference:
    """What generated images are compared with.

    second_moment: E|x|^2 per dimension of the data, in the data scale (theory needs it).
    """

    network: FeatureNetwork
    moments: FeatureMoments
    features_MF: NDArray[np.float32]
    second_moment: float


def reference(
    dataset: Dataset, features: str, folder: Path, device: torch.device | str = "cpu"
) -> Reference:
    """The reference in `folder`; made there if it is not.

    That takes seconds for the digits, minutes for 60,000 images.

    features: `classifier`, `pixels`, or the path of a TorchScript file.
    Raises JstarError if the folder holds the reference of another training distribution.
    """
    network, facts_file = _network(dataset, features, folder)
    if not facts_file.is_file() or read_json(facts_file)["features"] != network.name:
        _write(dataset, reference_of(dataset, network, device), facts_file)
    return _read(network, facts_file)


def _network(dataset: Dataset, features: str, folder: Path) -> tuple[FeatureNetwork, Path]:
    """The network, and the record of the dataset's features with it, there or not."""
    name = features if features in (CLASSIFIER, PIXELS) else Path(features).stem
    facts_file, weights = folder / f"{name}.json", folder / f"{name}.safetensors"
    if facts_file.is_file():
        require_same(
            dataset.card.id, str(read_json(facts_file)["card_id"]), "the dataset", str(facts_file)
        )
        for file in (weights, _stored(facts_file)):
            require_intact(file, facts_file, f"remove {facts_file} to make it again")
    if features == PIXELS:
        network = FeatureNetwork(PIXELS, lambda x: x.flatten(1))
    elif features != CLASSIFIER:
        network = load_script(dataset, Path(features))
    elif facts_file.is_file():
        network = load_classifier(dataset, weights)
    else:
        network = train_classifier(dataset, weights)
    return network, facts_file


def reference_of(
    dataset: Dataset, network: FeatureNetwork, device: torch.device | str = "cpu"
) -> Reference:
    """Moments of all images' features, and the features of KEPT of them."""
    kept = np.linspace(0, len(dataset) - 1, min(KEPT, len(dataset))).astype(int)
    squares, known, chosen = 0.0, None, []
    for part in np.array_split(np.arange(len(dataset)), math.ceil(len(dataset) / CHUNK)):
        images = dataset.sampled(part, SEED, part)
        squares += float(np.square(images, dtype=np.float64).sum())
        features_BF = network(images, device)
        part_moments = feature_moments(features_BF)
        known = part_moments if known is None else merged_moments(known, part_moments)
        chosen.append(features_BF[np.isin(part, kept)])
    assert known is not None
    return Reference(
        network, known, np.concatenate(chosen), squares / (len(dataset) * dataset.card.dim)
    )


def _write(dataset: Dataset, made: Reference, facts_file: Path) -> None:
    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, mean=made.moments.mean_F, cov=made.moments.cov_FF,
                     features=made.features_MF)  # fmt: skip

    write_atomically(_stored(facts_file), save)
    weights = facts_file.with_suffix(".safetensors")
    write_record(
        facts_file,
        provenance(
            card_id=dataset.card.id,
            features=made.network.name,
            dimensions=len(made.moments.mean_F),
            images=made.moments.count,
            accuracy=made.network.accuracy,
            second_moment=made.second_moment,
        ),
        [_stored(facts_file), *([weights] if weights.is_file() else [])],
    )


def _read(network: FeatureNetwork, facts_file: Path) -> Reference:
    facts, path = read_json(facts_file), _stored(facts_file)
    try:
        with np.load(path, allow_pickle=False) as stored:
            known = FeatureMoments(int(facts["images"]), stored["mean"], stored["cov"])
            return Reference(network, known, stored["features"], float(facts["second_moment"]))
    except (OSError, ValueError, KeyError) as error:
        raise JstarError(f"{path}: cannot be read ({error})") from error


def _stored(facts_file: Path) -> Path:
    """The arrays beside x.json: x.npz."""
    return facts_file.with_name(f"{facts_file.stem}.npz")
