"""Loss per noise bin, accumulated on the device and read a few dozen times a run."""

import math

import pandas as pd
import torch
from torch import Tensor

from jstar.noise import Process
from jstar.train.chunk import Chunk

BINS = 16  # equally likely under the noise law
LOSS_COLUMNS = (
    "images", "bin", "sigma_low", "sigma_high", "sigma", "count",
    "loss", "loss_se", "weighted", "weighted_se",
)  # fmt: skip


class LossBins:
    """Sums per noise bin since the last record, and the records so far.

    `loss` is the squared x0 error per dimension, `weighted` the training loss.
    """

    def __init__(self, process: Process, device: torch.device) -> None:
        share = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
        inner = process.law.quantile(share[1:-1])
        ends = process.law.quantile(torch.tensor([1e-3, 1 - 1e-3], dtype=torch.float64))
        self.sigma = [float(ends[0]), *inner.tolist(), float(ends[1])]
        self.edges = inner.log().float().to(device)
        self.sums = torch.zeros(BINS, 5, dtype=torch.float64, device=device)
        self.rows: list[list[float]] = []

    def add(self, chunk: Chunk, error_KB: Tensor) -> None:
        """Count the network's squared errors of a chunk. Those not finite are left out."""
        error = error_KB.flatten().double()
        finite = torch.isfinite(error)
        error = torch.where(finite, error, 0.0)
        loss, weighted = error * chunk.to_x0.flatten(), error * chunk.weight.flatten()
        values = torch.stack([finite.double(), loss, loss**2, weighted, weighted**2], dim=1)
        bins = torch.bucketize(chunk.log_sigma.flatten(), self.edges)
        # A one-hot product, because index_add has no fixed order of summation on a GPU.
        self.sums += torch.nn.functional.one_hot(bins, BINS).T.double() @ values

    def record(self, images: int, sums: Tensor) -> None:
        """Turn `sums` (those of all ranks) into rows, and start anew."""
        for k, (count, *moments) in enumerate(sums.tolist()):
            low, high = self.sigma[k], self.sigma[k + 1]
            self.rows.append(
                [images, k, low, high, math.sqrt(low * high), count,
                 *_mean_se(count, *moments[:2]), *_mean_se(count, *moments[2:])]
            )  # fmt: skip
        self.sums.zero_()

    def latest(self) -> dict[float, float]:
        """x0 loss by noise scale in the last record."""
        return {row[4]: row[6] for row in self.rows[-BINS:]}

    def frame(self) -> pd.DataFrame:
        """The records as a tidy table."""
        frame = pd.DataFrame(self.rows, columns=list(LOSS_COLUMNS))
        return frame.astype({"images": int, "bin": int, "count": int})


def _mean_se(count: float, total: float, squares: float) -> tuple[float, float]:
    if count < 2:
        return (total / count if count else math.nan), math.nan
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean**2, 0.0) / (count - 1))
