"""The stage sampling: quality.csv and a few images of one training run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from jstar.config import SamplerConfig, SamplingConfig, Study
from jstar.data import Dataset, open_dataset
from jstar.data.card import require_same
from jstar.manifest import parents
from jstar.progress import Progress
from jstar.records import provenance, read_json, write_atomically, write_table
from jstar.sampling.quality.features import FeatureNetwork, quantised
from jstar.sampling.quality.reference import Reference, reference
from jstar.sampling.quality.scores import SCORES, score
from jstar.sampling.samplers import LABEL, Denoiser, Sampler, draw_images
from jstar.sampling.steps import noise_steps
from jstar.torch_device import default_device
from jstar.train.snapshots import Snapshot, list_snapshots, load_denoiser, require_whole

SHOWN = 64  # images of each snapshot that are kept for the eye

QUALITY_COLUMNS = (
    "study", "run", "model", "params", "seed", "snapshot", "images", "flops", "ema",
    "sampler", "steps", "spacing", "sampled", "features", *SCORES, "evaluations",
    "rho", "sigma_min", "sigma_max", "eta", "churn", "guidance",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One snapshot and one way to draw from it."""

    snapshot: Snapshot
    config: SamplerConfig


def write_quality(
    study: Study,
    run: Path,
    data: Path,
    references: Path,
    out: Path,
    device: str | None = None,
) -> pd.DataFrame:
    """Draw images of the run's snapshots, compare them with the data, write `out` (quality.csv).

    Beside it samples.npz: the first images of every snapshot. One row a snapshot, and for the last
    snapshot one for each entry of `sampling.sweep`.
    """
    dataset, config = open_dataset(data, verify=study.resources.verify_arrays), study.sampling
    info = read_json(run / "run.json")
    require_whole(run)
    require_same(dataset.card.id, info["card_id"], str(data), str(run))
    where = str(default_device(device))
    known = reference(dataset, config.features, references, where)
    ema = config.ema or study.average
    trials = _trials(study, list_snapshots(run))
    key = (study.study, run.name, info["model"], info["params"], info["seed"])
    labels_N = draw_labels(dataset, config) if study.conditional else None
    rows, shown = [], []
    with Progress(f"sample {run.name}", len(trials) * config.count, "images") as bar:
        for trial in trials:
            denoiser = load_denoiser(run, trial.snapshot.index, ema, where)
            features_NF, first = draw_features(
                dataset, known.network, denoiser, config, trial.config, labels_N, where, bar.advance
            )
            rows.append((*key, *_row(trial, ema, features_NF, known)))
            if trial.config is config:
                shown.append(first)
    samples = out.with_name("samples.npz")
    write_atomically(samples, _archive(np.stack(shown), _real(dataset), trials))
    facts = provenance(
        card_id=dataset.card.id,
        run=run.name,
        fingerprint=info["fingerprint"],
        start_seed=config.seed,
        features=known.network.name,
        reference_images=known.moments.count,
        second_moment=known.second_moment,
        intervals="95 %, jackknife over generated images",
        **parents(out, [run / "run.json", data / "card.json"]),
    )
    frame = pd.DataFrame(rows, columns=list(QUALITY_COLUMNS))
    write_table(out, frame, facts, [samples])
    return frame


def _trials(study: Study, snapshots: list[Snapshot]) -> list[Trial]:
    """The chosen snapshots with the study's sampler, then the last with those of the sweep."""
    count = min(study.sampling.snapshots, len(snapshots))
    # Snapshots are log-spaced in images, so equal steps of their number are too.
    chosen = [round((k + 1) * len(snapshots) / count) - 1 for k in range(count)]
    return [
        *(Trial(snapshots[k], study.sampling) for k in chosen),
        *(Trial(snapshots[-1], swept) for swept in study.sampling.sweep),
    ]


def draw_features(
    dataset: Dataset, network: FeatureNetwork, denoiser: Denoiser, sampling: SamplingConfig,
    way: SamplerConfig, labels_N: NDArray[np.int64] | None, device: str,
    advance: Callable[[float], None],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Features [N, F] of drawn images, and the first `SHOWN` images in the data scale.

    sampling: count, seed and batch; way: the sampler and its steps. labels_N: given to the
    denoiser, or None. Raises JstarError as `draw_images` does.
    """
    features, first = [], []
    steps_K = noise_steps(way.spacing, way.steps, way.sigma_min, way.sigma_max, way.rho)
    for start in range(0, sampling.count, sampling.batch):
        index_B = np.arange(start, min(start + sampling.batch, sampling.count))
        labels = None if labels_N is None else torch.from_numpy(labels_N[index_B]).to(device)
        drawn = draw_images(
            denoiser, index_B, dataset.card.shape, steps_K, sampler_of(way),
            seed=sampling.seed, labels=labels, device=device,
        )  # fmt: skip
        images = quantised(dataset, drawn.cpu().numpy())
        features.append(network(images, device))
        if start < SHOWN:
            first.append(images[: SHOWN - start])
        advance(len(index_B))
    return np.concatenate(features), np.concatenate(first)


def sampler_of(way: SamplerConfig) -> Sampler:
    """The sampler of a part of a study file."""
    return Sampler(way.sampler, eta=way.eta, churn=way.churn, guidance=way.guidance)


def draw_labels(dataset: Dataset, config: SamplingConfig) -> NDArray[np.int64]:
    """Labels [count] in the shares of the data: image i's is a function of (seed, i)."""
    bits = np.random.Philox(key=[(LABEL << 32) | config.seed, 0])
    order = np.random.Generator(bits).permutation(len(dataset))
    picked: NDArray[np.int64] = dataset.labels_N[order[np.arange(config.count) % len(order)]]
    return picked


def _row(
    trial: Trial, ema: float, features_NF: NDArray[np.float32], known: Reference
) -> tuple[Any, ...]:
    """Columns of `QUALITY_COLUMNS` from `snapshot` on."""
    c, s = trial.config, trial.snapshot
    found = score(features_NF, known)
    rho = c.rho if c.spacing == "polynomial" else float("nan")
    return (
        s.index, s.images, s.flops, ema, c.sampler, c.steps, c.spacing, len(features_NF),
        known.network.name, *(found[name] for name in SCORES),
        sampler_of(c).evaluations(c.steps), rho, c.sigma_min, c.sigma_max, c.eta, c.churn,
        c.guidance,
    )  # fmt: skip


def _real(dataset: Dataset) -> NDArray[np.float32]:
    """Images of the data, evenly spaced, to look at beside the generated ones."""
    return dataset.scaled(np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).astype(int))


def _archive(
    images_TNCHW: NDArray[np.float32], real_NCHW: NDArray[np.float32], trials: list[Trial]
) -> Callable[[Path], None]:
    snapshots = [trial.snapshot.index for trial in trials[: len(images_TNCHW)]]

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(
                file, images=images_TNCHW, real=real_NCHW, snapshot=np.array(snapshots)
            )

    return write
