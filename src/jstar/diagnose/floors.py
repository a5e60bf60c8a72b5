"""Floors for a denoiser that generalises, beside J*, the floor of one that may memorise.

Let E(sigma) be the least loss on images that nobody has seen: the posterior mean under the
distribution itself. J*_N is below it in the mean, because it knows the images it is asked about;
every denoiser that was not fitted to them is above it. So E lies between `optimal` and the least of

    wiener  the linear filter of the data's mean and covariance, fitted without the images asked for
    alone   the posterior mean over all other images
    local   the posterior mean of patches at the same place (arXiv 2412.20292), of all other images

and where J*_N grows in shrinking steps, N/4, N/2, N, its limit E is extrapolated from them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from jstar.constants import CLEAR, NORMAL_95
from jstar.curve import OptimalLoss
from jstar.data import Dataset
from jstar.diagnose.oracle_draws import Truth, UnseenDraws
from jstar.errors import JstarError
from jstar.optimal import optimal_loss
from jstar.progress import Progress
from jstar.records import fingerprint, provenance, read_json, read_table, write_table

Floats = NDArray[np.float64]

FLOORS = ("sigma", "wiener", "alone", "local", "patch", "upper", "floor_generalising", "floor_low",
          "floor_high")  # fmt: skip
# Images that wiener and alone, and that local know, at most: fewer only raise the bound.
KNOWN, KNOWN_LOCAL = 4096, 1024
ASKED, ASKED_LOCAL = 256, 32  # draws, at most
PATCHES = (3, 7)  # sides; the better one counts
WIDEST = 4096  # dimensions beyond which no covariance is made
SUBSET_QUERIES = 1024
GROWTH = 0.85  # ratio of two steps of J*_N above which they do not shrink
FARTHEST = 2.0  # times J*_N: a limit beyond is no extrapolation but a guess
NEAR = 0.5  # J*_N must be this share of the bound from above: the limit lies between the two
RESAMPLED = 2000
VARIED = 0.5  # of the images' variance: outputs that vary less say nothing of memorising


def open_floors(
    data: Dataset, truth: Truth, held_out: UnseenDraws | None, folder: Path
) -> pd.DataFrame:
    """The table of floors at the noise scales of `truth`; computed once, kept in `folder`."""
    path = folder / "floors.csv"
    held = None if held_out is None else fingerprint(held_out.x0_MCHW.tobytes().hex())
    key = {"card_id": truth.card.id, "sigma": [f"{s:g}" for s in truth.oracle.sigma],
           "conditional": truth.labels_M is not None, "held_out": held}  # fmt: skip
    if path.is_file() and read_json(path.with_suffix(".json")).get("key") == key:
        return read_table(path, FLOORS)
    frame = floor_table(data, truth, held_out)
    write_table(path, frame, provenance(key=key, known=KNOWN, queries=SUBSET_QUERIES))
    return frame


def floor_table(data: Dataset, truth: Truth, held_out: UnseenDraws | None = None) -> pd.DataFrame:
    """FLOORS, one row a noise scale; NaN where a floor cannot be told.

    wiener, alone, local: of held-out images where there are any, else of some of the training
    images, which are then unknown to them. upper: the least of the three. floor_generalising:
    the limit of J*_N, floor_low and floor_high its interval (95 %).
    """
    sigma_S = truth.oracle.sigma
    asked = truth if held_out is None else held_out
    pick = np.unique(np.linspace(0, len(asked.x0_MCHW) - 1, ASKED).round().astype(int))
    own = truth.oracle.index_M[pick] if held_out is None else np.array([], int)
    others = np.setdiff1d(np.arange(len(data)), own)
    rows = []
    if len(others) >= 2:
        spread = np.linspace(0, len(others) - 1, KNOWN).round().astype(int)
        known = torch.from_numpy(data.scaled(others[np.unique(spread)]))
        x0 = torch.from_numpy(np.ascontiguousarray(asked.x0_MCHW[pick]))
        noise = torch.from_numpy(np.ascontiguousarray(asked.noise_MCHW[pick]))
        with Progress(f"floors {truth.card.name}", len(sigma_S), "noise scales") as bar:
            for row in upper_bounds(known, x0, noise, sigma_S):
                rows.append(row)
                bar.advance(1)
    else:
        rows = [(float("nan"),) * 4] * len(sigma_S)
    wiener, alone, local, patch = np.array(rows, dtype=np.float64).T
    upper = np.fmin(np.fmin(wiener, alone), local)
    limit, low, high = _limits(data, truth, upper)
    return pd.DataFrame(
        {"sigma": sigma_S, "wiener": wiener, "alone": alone, "local": local, "patch": patch,
         "upper": upper, "floor_generalising": limit, "floor_low": low, "floor_high": high},
        columns=list(FLOORS),
    )  # fmt: skip


@torch.no_grad()
def upper_bounds(
    known_NCHW: Tensor, x0_MCHW: Tensor, noise_MCHW: Tensor, sigma_S: Floats
) -> Iterator[tuple[float, float, float, float]]:
    """(wiener, alone, local, side of the patch) at every noise scale.

    known: images that are none of those asked for. NaN where a covariance would be too wide.
    """
    flat = known_NCHW.flatten(1).double()
    mean = flat.mean(0)
    values = vectors = None
    if flat.shape[1] <= WIDEST:
        values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    for sigma in map(float, sigma_S):
        x = x0_MCHW + sigma * noise_MCHW
        wiener = float("nan")
        if values is not None and vectors is not None:
            gain = values.clamp_min(0) / (values.clamp_min(0) + sigma**2)
            out = mean + ((x.flatten(1).double() - mean) @ vectors * gain) @ vectors.T
            wiener = float((out - x0_MCHW.flatten(1)).square().mean())
        square = torch.cdist(
            x.flatten(1), known_NCHW.flatten(1), compute_mode="use_mm_for_euclid_dist"
        ).square()
        weight = torch.softmax(-square.double() / (2 * sigma**2), dim=1)
        alone = float((weight @ flat - x0_MCHW.flatten(1)).square().mean())
        few = known_NCHW[:: max(1, len(known_NCHW) // KNOWN_LOCAL)]
        local = {side: _local(few, x0_MCHW, x, sigma, side) for side in PATCHES}
        side = min(local, key=lambda s: local[s])
        yield wiener, alone, local[side], float(side)


def _local(known_NCHW: Tensor, x0_MCHW: Tensor, x_MCHW: Tensor, sigma: float, side: int) -> float:
    """Loss of the posterior mean of patches: a pixel's weights come from its neighbourhood."""
    step = max(1, len(x0_MCHW) // ASKED_LOCAL)
    losses = []
    for clean, noisy in zip(x0_MCHW[::step], x_MCHW[::step], strict=True):
        square_N1HW = (known_NCHW - noisy).square().sum(1, keepdim=True)
        near_N1HW = F.avg_pool2d(square_N1HW, side, 1, side // 2) * side**2
        weight_N1HW = torch.softmax(-near_N1HW / (2 * sigma**2), dim=0)
        out = (weight_N1HW * known_NCHW).sum(0)
        losses.append(float((out - clean).square().mean()))
    return float(np.mean(losses))


# --- the limit of J*_N ----------------------------------------------------------------------------


def _limits(data: Dataset, truth: Truth, upper_S: Floats) -> tuple[Floats, Floats, Floats]:
    """Limit of J*_N for N to infinity and its interval; NaN where it cannot be extrapolated."""
    count, sigma_S = len(data), truth.oracle.sigma
    unknown = np.full(len(sigma_S), np.nan)
    if count < 64 or data.stds_NCHW is not None:
        return unknown, unknown, unknown
    order = np.random.Generator(np.random.Philox(key=[3, count])).permutation(count)
    loss, error = [], []
    for part in (4, 2):
        picked = np.sort(order[: count // part])
        try:
            curve = _curve_of(data, truth, picked)
        except JstarError:  # a class of a quarter of the images may be too small
            return unknown, unknown, unknown
        loss.append(curve.loss)
        error.append(curve.stderr)
    loss_3S = np.stack([*loss, truth.optimal_S])
    error_3S = np.stack([*error, truth.optimal_se_S])
    found = [extrapolate(loss_3S[:, s], error_3S[:, s], upper_S[s]) for s in range(len(sigma_S))]
    limit, low, high = np.array(found).T
    return limit, low, high


def _curve_of(data: Dataset, truth: Truth, picked: NDArray[np.int64]) -> OptimalLoss:
    """J* of some of the images at the noise scales of `truth`."""
    by_class = truth.labels_M is not None
    return optimal_loss(
        np.asarray(data.images_NCHW[picked]),
        truth.oracle.sigma,
        scale=data.card.scale,
        offset=data.card.offset,
        mirror=data.card.mirror,
        estimator="exact_by_class" if by_class else "exact",
        labels=data.labels_N[picked] if by_class else None,
        queries=min(SUBSET_QUERIES, len(picked)),
    )


def extrapolate(loss_3: Floats, error_3: Floats, upper: float) -> tuple[float, float, float]:
    """(limit, low, high) of J*_N from J* of N/4, N/2 and N images and their standard errors.

    J*_N = E - c N^-g has steps in a constant ratio r = 2^-g, and E = J*_N + d r / (1 - r) with the
    last step d. NaN three times where the steps do not shrink, or E would be a guess. Of steps
    within their errors E is J*_N within errors. upper: a bound on E from above.
    """
    unknown = (float("nan"),) * 3
    draws = np.random.Generator(np.random.Philox(key=[4, 0])).normal(size=(RESAMPLED, 3))
    sampled = loss_3 + draws * error_3
    step_1, step_2 = np.diff(sampled, axis=1).T
    noise = CLEAR * float(np.hypot(error_3[1], error_3[2]))
    last = float(loss_3[2])
    if last <= 0 or (np.isfinite(upper) and last < NEAR * upper):
        return unknown
    if loss_3[2] - loss_3[1] <= noise and noise < 0.1 * last:
        tail = np.maximum(step_2, 0)  # a step that was not seen, doubled at most (g = 1)
    else:
        first, second = np.diff(loss_3)
        if not (first > 0 and 0 < second < GROWTH * first):
            return unknown
        shares = np.clip(step_2 / np.where(step_1 > 0, step_1, np.inf), 0.25, GROWTH)
        tail = np.maximum(step_2, 0) * shares / (1 - shares)
    limit = float(last + np.median(tail))
    spread = NORMAL_95 * float(error_3[2])
    low = max(0.0, float(np.quantile(sampled[:, 2] + tail, 0.025)))
    high = float(np.quantile(sampled[:, 2] + tail, 0.975)) + spread
    if limit > FARTHEST * last:
        return unknown
    bound = upper if np.isfinite(upper) else np.inf
    # The bounds have errors too: they cut the interval, a limit beyond them is drawn back.
    return min(limit, max(bound, last)), min(low, limit), max(high, limit)


# --- does it remember? ----------------------------------------------------------------------------


@torch.inference_mode()
def memorised(out_MD: Tensor, own_MD: Tensor, training_ND: Tensor) -> float:
    """Share of outputs for held-out images that turn to training images.

    out: outputs for noisy versions of the images `own`, which were not trained on. The nearest
    image to each is sought among its own clean image, the training images, and as many other
    held-out ones: the share whose nearest is a training image, less that of the other held-out
    images, which are as near by chance. 0 for a network that treats both alike, 1 for one that
    returns its training images. A lower bound where there are fewer held-out images than training
    images. NaN where the outputs are nearly one image, as at large noise scales: then all of them
    may be nearest to one training image.
    """
    count = min(len(own_MD) - 1, len(training_ND))
    if count < 1 or float(out_MD.var(0).mean()) < VARIED * float(own_MD.var(0).mean()):
        return float("nan")
    spread = torch.linspace(0, len(training_ND) - 1, count).round().long()
    to_own_M = (out_MD - own_MD).norm(dim=1)
    to_training_M = torch.cdist(out_MD, training_ND[spread]).amin(1)
    between_MM = torch.cdist(out_MD, own_MD)
    between_MM.fill_diagonal_(float("inf"))
    kept = torch.linspace(0, len(own_MD) - 1, count + 1).round().long()
    to_others_M = between_MM[:, kept].amin(1)
    training = (to_training_M < torch.minimum(to_own_M, to_others_M)).float().mean()
    others = (to_others_M < torch.minimum(to_own_M, to_training_M)).float().mean()
    return max(0.0, float(training - others))
