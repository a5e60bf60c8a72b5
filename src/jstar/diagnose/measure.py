"""One denoiser measured against the truth: loss, gap and what kind of error it makes."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.diagnose.adapters import Adapter, guarded
from jstar.diagnose.floors import memorised
from jstar.diagnose.oracle_draws import Truth, UnseenDraws
from jstar.diagnose.totals import in_other_units, totals
from jstar.evaluate.losses import Denoiser, measure
from jstar.noise import Process, total_weights

COLUMNS = (
    "sigma", "loss", "loss_se", "optimal", "optimal_se", "difference", "gap", "gap_se",
    "gap_share", "mean_image", "excess_se", "slope", "slope_se", "offset", "weight", "harm",
    "loss_clipped",
    "time", "loss_epsilon", "loss_v", "loss_velocity", "held_out", "held_out_se", "memorised",
    "wiener", "alone", "local", "upper", "floor_generalising", "floor_low", "floor_high",
)  # fmt: skip

COMPARED = 256  # outputs of held-out draws whose neighbours are sought


@dataclass(frozen=True)
class Diagnosis:
    """What was found, per noise scale and in all; losses are squared errors per dimension.

    frame: COLUMNS, one row a noise scale. gap: E|D - D*|^2; difference: loss - J*, which agrees
    with it within errors; gap_share = gap / loss; mean_image: loss of the dataset's mean image, and
    excess_se the error of loss - mean_image; slope: of D on D*, both about the mean image; offset:
    mean square of E[D - D*]; weight: of the noise scale in the total loss of `process`; harm: of
    the gap in the bound on the sampling error, gap d ln sigma / sigma^2, as a share of all.
    time: what the network is told, where it is known. held_out: loss on images not trained on;
    memorised: share of the outputs for those that turn to a training image. wiener ...
    floor_high: jstar.diagnose.floors. loss_clipped: of the output cut to the range of the images,
    as samplers cut it. NaN: not known. gap_SM: |D - D*|^2 of every draw; held_out_SM: the loss of
    every held-out draw.
    """

    name: str
    process: Process
    dataset: str
    images: int
    draws: int
    frame: pd.DataFrame = field(repr=False)
    totals: dict[str, float] = field(default_factory=dict, repr=False)
    totals_optimal: dict[str, float] = field(default_factory=dict, repr=False)
    gap_SM: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    held_out_SM: NDArray[np.float64] | None = field(default=None, repr=False)

    def total(self, column: str) -> float:
        """Weighted sum of a column over the noise scales."""
        return float(self.frame["weight"].to_numpy() @ self.frame[column].to_numpy())

    @property
    def floor_share(self) -> float:
        """Share of the weighted loss that is J*: no training removes it."""
        return floor_share(self.frame)


def floor_share(frame: pd.DataFrame) -> float:
    """Share of J* in J* + gap, weighted; columns optimal, gap, weight."""
    floor, gap = (
        float(frame["weight"].to_numpy() @ frame[name].to_numpy()) for name in ("optimal", "gap")
    )
    return floor / (floor + gap)


class Recorder:
    """A denoiser that keeps, of all it returns, what slope, offset and the clipped loss need.

    It is called with all draws in order, one noise scale after another.
    """

    def __init__(
        self, denoise: Denoiser, mean_CHW: NDArray[np.float32], x0_MCHW: NDArray[np.float32]
    ) -> None:
        self.denoise, self.draws, self.at = denoise, len(x0_MCHW), 0
        self.mean = torch.from_numpy(mean_CHW).flatten()
        self.x0_MD = torch.from_numpy(np.ascontiguousarray(x0_MCHW)).flatten(1)
        self.low, self.high = float(x0_MCHW.min()), float(x0_MCHW.max())
        self.square: list[NDArray[np.float64]] = []  # |D - mean image|^2 / dim, a batch each
        self.clipped: list[float] = []  # sum over the batch of |clipped D - x0|^2 / dim
        self.sums: list[NDArray[np.float64]] = []  # sum over the batch of D - mean image

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        out = self.denoise(x, sigma, labels)
        if out.shape == x.shape:  # anything else is refused by the caller
            flat = out.float().flatten(1)
            centred = flat - self.mean.to(out.device)
            self.square.append(centred.square().mean(1, dtype=torch.float64).cpu().numpy())
            self.sums.append(centred.sum(0, dtype=torch.float64).cpu().numpy())
            clean = self.x0_MD[self.at : self.at + len(x)].to(out.device)
            error = (flat.clamp(self.low, self.high) - clean).square().mean(1, dtype=torch.float64)
            self.clipped.append(float(error.sum()))
            self.at = (self.at + len(x)) % self.draws
        return out

    def clipped_S(self, scales: int) -> NDArray[np.float64]:
        """Loss of the output cut to the range of the images."""
        per_scale: NDArray[np.float64] = np.reshape(self.clipped, (scales, -1)).sum(axis=1)
        return per_scale / self.draws

    def square_SM(self) -> NDArray[np.float64]:
        return np.concatenate(self.square).reshape(-1, self.draws)

    def mean_SD(self, scales: int) -> NDArray[np.float64]:
        """Mean over the draws of D - mean image."""
        sums_SKD = np.stack(self.sums).reshape(scales, -1, len(self.mean))
        return np.asarray(sums_SKD.sum(axis=1) / self.draws)


def diagnose(
    adapter: Adapter,
    truth: Truth,
    process: Process,
    *,
    held_out: UnseenDraws | None = None,
    floors: pd.DataFrame | None = None,
    batch: int = 256,
    device: str = "cpu",
) -> Diagnosis:
    """Measure `adapter` at all noise scales of `truth` that it was made for.

    process: its weights make the total loss. held_out: images that were not trained on. floors: of
    `jstar.diagnose.floors`, at the noise scales of `truth`. Raises JstarError where the denoiser
    fails, returns another shape or numbers that are not finite.
    """
    rows = truth.rows(adapter.sigma_min, adapter.sigma_max)
    sigma_S, draws = truth.oracle.sigma[rows], len(truth.x0_MCHW)
    recorder = Recorder(guarded(adapter.denoise), truth.mean_CHW, truth.x0_MCHW)
    measured = measure(
        recorder,
        truth.x0_MCHW,
        truth.noise_MCHW,
        sigma_S,
        labels_M=truth.labels_M,
        posterior_mean=lambda s: truth.oracle.posterior_mean(rows[s]),
        batch=batch,
        device=device,
    )
    assert measured.gap_SM is not None
    loss, loss_se, gap, gap_se = np.array(measured.summary(np.eye(len(rows)))).T
    flat_MD = (truth.x0_MCHW - truth.mean_CHW).reshape(draws, -1)
    variance_M = np.square(flat_MD, dtype=np.float64).mean(1)
    excess_SM = measured.loss_SM - variance_M
    kinds = _kinds(truth, rows, measured.gap_SM, recorder)
    optimal_S = truth.optimal_S[rows]
    frame = pd.DataFrame(
        {
            "sigma": sigma_S,
            "loss": loss,
            "loss_se": loss_se,
            "optimal": optimal_S,
            "optimal_se": truth.optimal_se_S[rows],
            "difference": loss - optimal_S,
            "gap": gap,
            "gap_se": gap_se,
            "gap_share": gap / (gap + optimal_S),
            "mean_image": float(variance_M.mean()),
            "excess_se": excess_SM.std(axis=1, ddof=1) / np.sqrt(draws),
            **kinds,
            "weight": total_weights(process, sigma_S),
            "harm": harm(sigma_S, gap),
            "loss_clipped": recorder.clipped_S(len(rows)),
            "time": told(adapter, sigma_S),
            **in_other_units(sigma_S, loss),
        }
    )
    held_out_SM = None
    if held_out is not None:
        held_out_SM, found = on_held_out(adapter, truth, held_out, sigma_S, batch, device)
        frame = frame.assign(**found)
    if floors is not None:
        known = floors.iloc[rows].drop(columns=["sigma", "patch"])
        frame = frame.assign(**{str(name): known[name].to_numpy() for name in known})
    return Diagnosis(
        adapter.name, process, truth.card.name, truth.card.count, draws,
        frame.reindex(columns=list(COLUMNS)),
        totals(sigma_S, loss, adapter), totals(sigma_S, optimal_S, adapter),
        measured.gap_SM, held_out_SM,
    )  # fmt: skip


def harm(sigma_S: NDArray[np.float64], gap_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares [S] of the bound on the sampling error, int gap / sigma^2 d ln sigma.

    Per dimension it bounds the KL divergence of what the reverse SDE draws from the training
    distribution (Song et al. 2021, arXiv 2101.09258, theorem 1, in VE coordinates).
    """
    part_S = np.gradient(np.log(sigma_S)) * gap_S / sigma_S**2
    return np.asarray(part_S / max(float(part_S.sum()), 1e-300))


def told(adapter: Adapter, sigma_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the network is told [S]; NaN where only the adapter knows."""
    if adapter.parts is None:
        return np.full(len(sigma_S), np.nan)
    time = adapter.parts.told(adapter.parts.claim, torch.from_numpy(sigma_S))
    return np.asarray(time.double().numpy())


@torch.inference_mode()
def on_held_out(
    adapter: Adapter,
    truth: Truth,
    held_out: UnseenDraws,
    sigma_S: NDArray[np.float64],
    batch: int,
    device: str,
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Loss of every held-out draw [S, M]; held_out, held_out_se and memorised [S].

    The noise is that of the training draws.
    """
    denoise = guarded(adapter.denoise)
    measured = measure(
        denoise, held_out.x0_MCHW, held_out.noise_MCHW, sigma_S, labels_M=held_out.labels_M,
        batch=batch, device=device,
    )  # fmt: skip
    loss, error, _, _ = np.array(measured.summary(np.eye(len(sigma_S)))).T
    share = np.empty(len(sigma_S))
    pick = np.unique(np.linspace(0, len(held_out.x0_MCHW) - 1, COMPARED).round().astype(int))
    x0, noise = (torch.from_numpy(a[pick]) for a in (held_out.x0_MCHW, held_out.noise_MCHW))
    labels = None if held_out.labels_M is None else held_out.labels_M[pick]
    training = torch.from_numpy(np.ascontiguousarray(truth.x0_MCHW)).flatten(1)
    for s, sigma in enumerate(map(float, sigma_S)):
        y = None if labels is None else torch.from_numpy(labels).to(device)
        told_B = torch.full((len(pick),), sigma, device=device)
        out = denoise((x0 + sigma * noise).to(device), told_B, y).float().cpu()
        share[s] = memorised(out.flatten(1), x0.flatten(1), training)
    return measured.loss_SM, {"held_out": loss, "held_out_se": error, "memorised": share}


def _kinds(
    truth: Truth, rows: list[int], gap_SM: NDArray[np.float64], recorder: Recorder
) -> dict[str, NDArray[np.float64]]:
    """Slope of D on D* with its error, and the offset, at every noise scale.

    With d = D - m and d* = D* - m: 2 <d, d*> = |d|^2 + |d*|^2 - |D - D*|^2, all of them known.
    """
    square_SM, mean_SD = recorder.square_SM(), recorder.mean_SD(len(rows))
    slope, slope_se, offset = (np.empty(len(rows)) for _ in range(3))
    for k, row in enumerate(rows):
        best_MD = (truth.oracle.posterior_mean(row) - truth.mean_CHW).reshape(len(gap_SM[k]), -1)
        best_M = np.square(best_MD, dtype=np.float64).mean(1)
        inner_M = (square_SM[k] + best_M - gap_SM[k]) / 2
        slope[k] = inner_M.mean() / best_M.mean()
        rest_M = inner_M - slope[k] * best_M
        slope_se[k] = rest_M.std(ddof=1) / np.sqrt(len(rest_M)) / best_M.mean()
        bias_D = mean_SD[k] - best_MD.mean(axis=0, dtype=np.float64)
        # A mean over M draws has 1/M of the gap's scatter in it.
        square, noise = float(np.square(bias_D).mean()), float(gap_SM[k].mean()) / len(rest_M)
        offset[k] = max(0.0, (square - noise) / (1 - 1 / len(rest_M)))
    return {"slope": slope, "slope_se": slope_se, "offset": offset}
