"""The oracle set: fixed noisy draws and their posterior means, written once for each dataset.

With D* at hand the loss gap of a checkpoint is a plain mean of squares, E|D_theta(x) - D*(x)|^2
(METHOD section 1, "The gap, measured directly").
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.data.card import require_same
from jstar.data.store import Dataset, load_array
from jstar.errors import JstarError
from jstar.manifest import parents
from jstar.noise import gaussian
from jstar.optimal.draws import gaussian_noise
from jstar.optimal.exact.mixture_form import LATENT_STREAM, component_draws, posterior_moments
from jstar.optimal.exact.problem import pose_problem
from jstar.optimal.points import DataPoints, as_points
from jstar.optimal.posterior import mean_of_points
from jstar.records import (
    provenance,
    read_json,
    require_intact,
    write_array,
    write_atomically,
    write_record,
)

ARRAYS = ("index.npy", "mirrored.npy", "posterior_mean.npy")  # the large one last


@dataclass(frozen=True)
class Oracle:
    """An opened oracle set. x = x0 + sigma * noise, the same x0 and noise at every sigma."""

    card_id: str
    sigma: NDArray[np.float64]
    index_M: NDArray[np.int64]  # image of each draw
    mirrored_M: NDArray[np.bool_]  # whether the draw starts from its mirror image
    seed: int
    shape: tuple[int, ...]  # C, H, W
    mean_SMCHW: NDArray[np.float32]  # memory-mapped

    def x0(self, dataset: Dataset) -> NDArray[np.float32]:
        """Clean images of the draws in the data scale, float32 [M, C, H, W].

        Of sampled latents: one draw from each image's Gaussian, a function of (seed, m).
        """
        require_same(self.card_id, dataset.card.id, "the oracle set", "the dataset")
        if self.index_M.min() < 0 or self.index_M.max() >= len(dataset):
            raise JstarError(
                f"the oracle set: index.npy names images {self.index_M.min()} to "
                f"{self.index_M.max()}, the dataset has 0 to {len(dataset) - 1}; run "
                "'jstar oracle' again"
            )
        draw_M = np.arange(len(self.index_M)) + LATENT_STREAM
        images = dataset.sampled(self.index_M, self.seed, draw_M)
        flipped_MCHW: NDArray[np.float32] = images[..., ::-1]
        return np.where(self.mirrored_M[:, None, None, None], flipped_MCHW, images)

    def noise(self) -> NDArray[np.float32]:
        """Unit noise of the draws, float32 [M, C, H, W]: row m is a function of (seed, m)."""
        dim = int(np.prod(self.shape))
        flat = gaussian(self.seed, np.arange(len(self.index_M)), dim)
        return flat.reshape(len(flat), *self.shape)

    def posterior_mean(self, s: int) -> NDArray[np.float32]:
        """D* of the draws at sigma[s], float32 [M, C, H, W]."""
        mean_MCHW: NDArray[np.float32] = self.mean_SMCHW[s]
        return mean_MCHW


def dataset_points(dataset: Dataset) -> DataPoints:
    """The points of a prepared dataset."""
    card = dataset.card
    return as_points(
        dataset.images_NCHW, scale=card.scale, offset=card.offset, mirror=card.mirror,
        spread=dataset.stds_NCHW,
    )  # fmt: skip


def build_oracle(
    dataset: Dataset,
    sigmas: Any,
    *,
    queries: int,
    seed: int,
    estimator: str,
    out: str | Path,
    card: Path | None = None,
    progress: Callable[[float], None] | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Write the oracle set of `dataset` to the folder `out`; oracle.json last.

    queries: draws M, each image (or mirror image) at most once, so at most N. With the estimator
    `exact_by_class` the posterior runs over the points of the draw's class: models are evaluated
    with all labels given, whatever share of them was dropped in training. Of sampled latents the
    draws come from the Gaussians, and so does D*. card: card.json of the dataset.
    progress: called with the number of draws that are done, S times M in all.
    """
    out, points = Path(out), dataset_points(dataset)
    problem = pose_problem(
        points, sigmas, estimator=estimator, labels=dataset.labels_N,
        queries=min(queries, len(points)), seed=seed, device=device,
    )  # fmt: skip
    sigma_S, source_M, where = problem.sigma_S, problem.source_M, problem.device
    index_M, mirrored_M = source_M % points.images, source_M >= points.images
    noise_MD = gaussian_noise(seed, problem.number_M, points.dim).double()
    sampled, groups = points.spread_ND is not None, list(problem.groups())
    if sampled:
        z_MD = component_draws(points, source_M, problem.number_M, seed)
    else:
        z_MD = points.take(source_M).double()

    def write_means(path: Path) -> None:
        shape = (len(sigma_S), len(source_M), *dataset.card.shape)
        means = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for s, sigma in enumerate(sigma_S):
            tau = float(sigma) / points.scale
            for group in groups:
                x_MD = z_MD[group.rows_M] + tau * noise_MD[group.rows_M]
                if sampled:
                    mean_MD = posterior_moments(group.points, x_MD, tau, where)[0]
                else:
                    mean_MD = mean_of_points(group.points, x_MD, tau, problem.precision, where)
                scaled = (mean_MD + (points.centre - dataset.card.offset)) * points.scale
                means[s, group.rows_M] = scaled.numpy().reshape(-1, *dataset.card.shape)
                if progress is not None:
                    progress(len(group.rows_M))
        means.flush()
        (out / "oracle.json").unlink(missing_ok=True)  # no marker while the files change

    write_atomically(out / "posterior_mean.npy", write_means)
    write_array(out / "index.npy", index_M)
    write_array(out / "mirrored.npy", mirrored_M)
    facts = provenance(
        card_id=dataset.card.id,
        sigma=sigma_S,
        queries=len(source_M),
        seed=seed,
        estimator=estimator,
        shape=dataset.card.shape,
        **parents(out / "oracle.json", [card]),
    )
    write_record(out / "oracle.json", facts, [out / name for name in ARRAYS])


def open_oracle(folder: str | Path, *, verify: bool = True) -> Oracle:
    """Open the oracle set in `folder`; its posterior means stay on disk.

    verify: whether the posterior means are compared with their checksum, as in `open_dataset`.
    Raises JstarError where a file is missing, damaged or not what oracle.json says.
    """
    folder = Path(folder)
    if not (folder / "oracle.json").is_file():
        raise JstarError(f"{folder}: holds no oracle.json, run 'jstar oracle' first")
    facts = read_json(folder / "oracle.json")
    for name in ARRAYS if verify else ARRAYS[:2]:
        require_intact(folder / name, folder / "oracle.json", "run 'jstar oracle' again")
    try:
        index, mirrored, mean = (load_array(folder / name) for name in ARRAYS)
        shape = tuple(int(n) for n in facts["shape"])
        expected = (len(facts["sigma"]), facts["queries"], *shape)
        card_id, seed = str(facts["card_id"]), int(facts["seed"])
        sigma = np.array(facts["sigma"], dtype=np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise JstarError(f"{folder}: is not a complete oracle set ({error})") from error
    if index.dtype.kind not in "iu" or mirrored.dtype != bool or mean.dtype.kind != "f":
        raise JstarError(f"{folder}: is not a complete oracle set (arrays of other types)")
    if mean.shape != expected or index.shape != expected[1:2] or mirrored.shape != index.shape:
        raise JstarError(
            f"{folder}/posterior_mean.npy: has shape {mean.shape}, oracle.json says {expected}"
        )
    return Oracle(card_id, sigma, np.array(index), np.array(mirrored), seed, shape, mean)
