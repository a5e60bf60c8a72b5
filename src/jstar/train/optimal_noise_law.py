"""The noise law that follows the gap: weight from the optimal loss, p(sigma) from weight x gap.

    w J = a min(1 / J*, w_max / s_d^2) J + N(ln sigma; mu, s^2) [sigma < sigma*] j
    p(sigma) ~ w (J - J*)

(arXiv 2506.13763, the training schedule; METHOD section 3). J is the x0 loss, j = J / J_d the loss
in units of what a Gaussian of the data width leaves, J_d = sigma^2 s_d^2 / (sigma^2 + s_d^2):
EDM's weighting, j = 1 for an untrained EDM network. So the first term is the relative loss J / J*
where J* is known to be positive; where the cap binds it falls like sigma^2, and below sigma* the
bell, EDM's own emphasis, takes over. The publication does not say in which units its terms are.
With both in units of j the capped term stays constant down to the smallest noise scale, p gathers
there, where the gap is large because it is hard to close, and on the digits samples and every total
gap were worse than with EDM's own law (depth 3, FID 2.6 against 2.1).

In the code below w multiplies j, for every process alike: min(1 / j*, w_max J_d / s_d^2).

As in EDM and in the paper, weight and law are two things: the training loss is the mean of w j
over sigma ~ p, *not* of (w / p) j. w makes the noise scales comparable, p spends the batch where
most is left to gain, and the emphasis of a noise scale is their product.

The publication leaves open how p follows the gap. Here: ln sigma in BINS equal bins over the range
of the curve. In each, the mean of j - j* over the training draws, weighted by (images seen)^gamma,
with the linear denoiser's error as control variate (`jstar.train.control`) and never below 0;
p is piecewise uniform, renewed after every chunk of steps, with a fixed share of a uniform law,
so that no noise scale is lost for good. Before anything is known the gap is that of a network that
returns zero, as ours does when it starts. All of it is a function of the draws so far, of all
ranks, and lies in the checkpoint.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from jstar.config import OptimalLossNoise, TrainConfig
from jstar.curve import OptimalLoss, read_curve
from jstar.data import Dataset
from jstar.data.card import require_same
from jstar.errors import JstarError
from jstar.noise import Array, Process, histogram, log_normal, process
from jstar.records import read_json
from jstar.train.chunk import Chunk
from jstar.train.control import LinearControl
from jstar.train.noise_law import TrainingNoiseLaw
from jstar.train.parallel import Ranks

BINS = 32
SURE_DRAWS = 8.0  # in a bin, before the control's coefficient is estimated
OFFSET = 128  # images; keeps the ratio of the sums where nothing was drawn yet
NOISE_LAW_COLUMNS = ("images", "sigma", "weight", "gap", "density", "draws")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OptimalWeight:
    """w of the module's head, on j."""

    curve: OptimalLoss
    noise: OptimalLossNoise
    sigma_data: float
    scale: float = 1.0

    def optimal(self, sigma: Floats) -> Floats:
        """J*, the x0 loss of the best denoiser; a rounded draw may lie just outside the curve."""
        return self.curve.at(np.clip(sigma, *self.curve.sigma[[0, -1]]))[0]

    def unit(self, sigma: Array) -> Array:
        """x0 loss of the linear denoiser of N(0, sigma_data^2): the unit of j."""
        return 1 / process("edm", sigma_data=self.sigma_data).weight(sigma)

    def __call__(self, sigma: Array) -> Array:
        """w at noise scales of the curve's range; NumPy array or (CPU) tensor as given."""
        value = np.asarray(sigma, dtype=np.float64)
        n = self.noise
        optimal = self.optimal(value) / self.unit(value)
        bell = log_normal(n.mu, n.s).density(value) * (value < self.curve.critical_sigma)
        cap = n.w_max * self.unit(value) / self.sigma_data**2
        weight = self.scale * (n.a * np.minimum(1 / np.maximum(optimal, 1e-12), cap) + bell)
        return torch.from_numpy(weight) if isinstance(sigma, Tensor) else weight


def choose_noise_law(
    config: TrainConfig, base: Process, dataset: Dataset, curve: Path | None, device: torch.device
) -> TrainingNoiseLaw:
    """The law of a run: that of `train.noise`, with J* from the table `curve`, or its process' own.

    Raises JstarError if J* is not there, or is that of another training distribution.
    """
    if config.noise is None:
        return TrainingNoiseLaw(base)
    if curve is None or not curve.is_file():
        raise JstarError(
            f"{curve or 'curve.csv'}: is not there, train.noise needs J*: run 'jstar optimal' first"
        )
    known = read_json(curve.with_suffix(".json")).get("card_id", "(unknown)")
    require_same(dataset.card.id, known, "the dataset to train on", str(curve))
    return OptimalLossNoiseLaw(
        config.noise, base, config.sigma_data, read_curve(curve), dataset, device
    )


class OptimalLossNoiseLaw(TrainingNoiseLaw):
    """The law of a run that is trained with `train.noise`.

    `base` is the process with its own law, whose preconditioning is kept. w is scaled to the mean 1
    under that law, so that learning rate and clip_norm mean what they mean without it.
    """

    def __init__(
        self,
        noise: OptimalLossNoise,
        base: Process,
        sigma_data: float,
        curve: OptimalLoss,
        dataset: Dataset,
        device: torch.device,
    ) -> None:
        self.curve_id = curve.fingerprint
        self.share, self.gamma = noise.share, 1 / noise.memory - 2
        self.unlabelled = dataset.card.classes
        self.edges = np.geomspace(curve.sigma[0], curve.sigma[-1], BINS + 1)
        self.centres = np.sqrt(self.edges[1:] * self.edges[:-1])
        raw = OptimalWeight(curve, noise, sigma_data)
        own = base.law.density(self.centres)
        self.weight = replace(raw, scale=float(own.sum() / (own @ raw(self.centres))))
        self.base = replace(base, weight=lambda s: self.weight(s) / self.weight.unit(s))
        # Sampled latents have a spread that the control's known mean does not have.
        self.control = None if dataset.card.sampled else LinearControl(dataset, device)
        self.identity = {"curve": self.curve_id}
        self.centre_weight = self.weight(self.centres)
        self.low, self.span = np.log(self.edges[0]), np.log(self.edges[-1] / self.edges[0])
        self.images, self.rows = 0, list[list[float]]()
        # Decayed sums in each bin: draws, gap, control, gap x control, control^2.
        start = np.zeros((BINS, 5))
        start[:, 0], start[:, 1] = 1.0, self._untrained(dataset)
        self.sums = torch.from_numpy(start).to(device)
        self._renew()

    def _untrained(self, dataset: Dataset) -> Floats:
        """j - j* of a network that returns zero: D = c_skip x."""
        card, s = dataset.card, self.centres
        skip = self.base.c_skip(s)
        square = card.std**2 + card.mean**2
        loss = (1 - skip) ** 2 * square + (skip * s) ** 2
        return np.asarray((loss - self.weight.optimal(s)) / self.weight.unit(s))

    @property
    def floor(self) -> float:
        """The training loss of the best denoiser under the present law."""
        u = (np.arange(4096) + 0.5) / 4096
        sigma = self.process.law.quantile(u)
        return float(np.mean(self.base.weight(sigma) * self.weight.optimal(sigma)))

    @torch.no_grad()
    def follow(self, chunk: Chunk, error_KB: Tensor, images: int, ranks: Ranks) -> None:
        """Learn from the network's squared errors of a chunk, `images` seen after it; renew p.

        Draws that are not finite, or whose label was dropped (their optimal loss is another one),
        are left out. All ranks must call it.
        """
        log_sigma, sigma = chunk.log_sigma.flatten(), chunk.log_sigma.flatten().exp()
        place = ((log_sigma - self.low) / self.span).clamp(0, 1)
        optimal = torch.from_numpy(self.weight.optimal(sigma.double().cpu().numpy())).to(sigma)
        unit = self.weight.unit(sigma)
        gap = (error_KB.flatten() * chunk.to_x0.flatten() - optimal) / unit
        kept = torch.isfinite(gap)
        if chunk.labels is not None:
            kept &= chunk.labels.flatten() != self.unlabelled
        control = torch.zeros_like(gap) if chunk.control is None else chunk.control.flatten() / unit
        gap, control = torch.where(kept, gap, 0.0).double(), torch.where(kept, control, 0).double()
        values = torch.stack([kept.double(), gap, control, gap * control, control**2], dim=1)
        bins = (place * BINS).long().clamp(max=BINS - 1)
        fresh = ranks.sum(one_hot(bins, BINS).T.double() @ values)
        # (t0 / t1)^gamma makes the average weigh a draw by its time^gamma, and so look back a
        # constant share of the run: further, the slower the gap changes.
        fading = ((self.images + OFFSET) / (images + OFFSET)) ** self.gamma
        self.sums.mul_(fading).add_(fresh)
        self.images = images
        self._renew()

    def _renew(self) -> None:
        """Gap and law from the sums."""
        draws, gap, control, product, square = self.sums.cpu().numpy().T
        covariance = product - gap * control / draws
        variance = square - control**2 / draws
        sure = (draws > SURE_DRAWS) & (variance > 0)
        coefficient = np.where(sure, covariance / np.where(sure, variance, 1.0), 0.0)
        self.gap = np.maximum((gap - coefficient * control) / draws, 0.0)
        wanted = self.centre_weight * self.gap
        uniform = np.full(BINS, 1 / BINS)
        follow = wanted / wanted.sum() if wanted.sum() > 0 else uniform
        law = histogram(self.edges, (1 - self.share) * follow + self.share * uniform)
        self.process = replace(self.base, law=law)

    # -- what is kept ------------------------------------------------------------------------

    def record(self, images: int) -> None:
        """Note gap and law as they are now."""
        density, draws = self.process.law.density(self.centres), self.sums[:, 0].cpu().numpy()
        columns = (self.centres, self.centre_weight, self.gap, density, draws)
        self.rows += [[images, *map(float, row)] for row in zip(*columns, strict=True)]

    def frame(self) -> pd.DataFrame:
        """The notes as a tidy table: per bin w, gap j - j*, p in ln sigma, and decayed draws."""
        frame = pd.DataFrame(self.rows, columns=list(NOISE_LAW_COLUMNS))
        return frame.astype({"images": int})

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        rows = torch.tensor(self.rows, dtype=torch.float64).view(-1, len(NOISE_LAW_COLUMNS))
        return {"noise_law": self.sums, "noise_law_records": rows}

    def restore(self, tensors: dict[str, Tensor], images: int) -> None:
        """Undo `tensors`, kept after `images` images."""
        self.sums.copy_(tensors["noise_law"])
        self.rows, self.images = tensors["noise_law_records"].tolist(), images
        self._renew()
