"""Synthetic studies from known laws, to test the intervals."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from jstar.constants import NORMAL_95
from jstar.errors import JstarError
from jstar.scaling.laws import MIN_CLUSTERS, LawPoints


@dataclass(frozen=True)
class TrueLaw:
    """A law and the noise of the runs that measure it.

    J = J* + gap, gap proportional to F^alpha, J* the share `optimal_share` of J at the middle of
    the compute range (0: a raw law). Each run covers its own stretch of `decades` with `points`
    snapshots. run_noise, point_noise: standard deviation of ln gap from run to run and from
    snapshot to snapshot. optimal_error: relative standard error of J*. direct: the gap is measured
    directly; otherwise it is J minus the erroneous J*.
    """

    alpha: float
    optimal_share: float = 0.5
    runs: int = 6
    points: int = 6
    decades: float = 3.0
    run_noise: float = 0.01
    point_noise: float = 0.005
    optimal_error: float = 0.0
    direct: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.optimal_share < 1:
            raise JstarError(
                f"simulate: optimal_share = {self.optimal_share:g}, allowed are 0 up to below 1"
            )
        if self.runs < MIN_CLUSTERS or self.points < 2:
            raise JstarError(
                f"simulate: {self.runs} runs of {self.points} points, at least {MIN_CLUSTERS} "
                "runs of 2 are needed"
            )
        if not self.decades > 0:
            raise JstarError(f"simulate: decades = {self.decades:g}, it must be above 0")
        for name in ("run_noise", "point_noise", "optimal_error"):
            if not getattr(self, name) >= 0:
                raise JstarError(
                    f"simulate: {name} = {getattr(self, name):g}, 0 or more is allowed"
                )


def simulate_points(truth: TrueLaw, seed: int, index: int = 0) -> LawPoints:
    """Frontier points of one synthetic study, a pure function of (seed, index)."""
    rng = np.random.default_rng([seed, index])
    run = np.repeat(np.arange(truth.runs), truth.points)
    inside = np.tile((np.arange(truth.points) + 0.5) / truth.points, truth.runs)
    x = ((run + inside) / truth.runs - 0.5) * truth.decades * np.log(10)
    noise = truth.run_noise * rng.standard_normal(truth.runs)[run]
    noise = noise + truth.point_noise * rng.standard_normal(len(x))
    gap = (1 - truth.optimal_share) * np.exp(truth.alpha * x + noise)
    error = truth.optimal_error * truth.optimal_share
    given = truth.optimal_share + error * rng.standard_normal()
    loss = (given if truth.direct else truth.optimal_share) + gap
    return LawPoints(
        flops=np.exp(x + 18 * np.log(10)),
        loss=loss,
        gap=gap if truth.direct else loss - given,
        loss_se=np.zeros(len(x)),
        gap_se=np.zeros(len(x)),
        cluster=run.astype(np.int64),
        optimal=given,
        optimal_se=error,
        direct=truth.direct,
    )


@dataclass(frozen=True)
class TrueStudy:
    """A whole study: gap = scale(sigma) (A N^-a + B D^-b), J* = v sigma^2 / (v + sigma^2).

    N: parameters, D: images, F = 6 N D. Along the optimal N(F), gap is proportional to F^alpha
    with alpha = -a b / (a + b), at every sigma. run_noise, snapshot_noise: of ln gap.
    """

    a: float = 0.4
    b: float = 0.3
    sizes: tuple[float, float, int] = (1e5, 1e7, 6)
    images: tuple[float, float, int] = (1e4, 3e6, 24)
    seeds: int = 1
    sigmas: tuple[float, ...] = (0.3, 1.0, 4.0)
    variance: float = 0.25
    run_noise: float = 0.01
    snapshot_noise: float = 0.002
    loss_error: float = 0.01
    optimal_error: float = 0.002

    @property
    def alpha(self) -> float:
        """Exponent of the compute-optimal gap."""
        return -self.a * self.b / (self.a + self.b)


def simulate_study(
    truth: TrueStudy, seed: int, index: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of losses and of J*, as the stages evaluate and optimal write them.

    The loss carries an error common to all models (they are measured on the same draws), and the
    curve an error common to all noise scales; the direct gap carries neither.
    """
    rng = np.random.default_rng([seed, index])
    images = np.geomspace(*truth.images)
    sigma = np.array(truth.sigmas)
    optimal = truth.variance * sigma**2 / (truth.variance + sigma**2)
    shift = 1 + truth.loss_error * rng.standard_normal()
    middle = float(np.sqrt(truth.sizes[0] * truth.sizes[1]))
    first = float(np.sqrt(truth.images[0] * truth.images[1]))
    frames = []
    for number, params in enumerate(np.geomspace(*truth.sizes)):
        for s in range(truth.seeds):
            luck = truth.run_noise * rng.standard_normal()
            noise = luck + truth.snapshot_noise * rng.standard_normal(len(images))
            shape = truth.b * (params / middle) ** -truth.a + truth.a * (images / first) ** -truth.b
            gap_TS = np.outer(shape * np.exp(noise), 0.1 * truth.variance / (1 + sigma))
            frames.append(
                pd.DataFrame(
                    {
                        "study": "simulated", "run": f"n{number}-s{s}", "model": f"n{number}",
                        "params": params, "seed": s,
                        "snapshot": np.repeat(np.arange(len(images)), len(sigma)),
                        "images": np.repeat(images, len(sigma)),
                        "flops": np.repeat(6 * params * images, len(sigma)),
                        "ema": 0.1, "split": "train", "sigma": np.tile(sigma, len(images)),
                        "loss": (optimal * shift + gap_TS).ravel(),
                        "loss_se": np.tile(truth.loss_error * optimal, len(images)),
                        "gap": gap_TS.ravel(), "gap_se": 0.01 * gap_TS.ravel(),
                    }
                )
            )  # fmt: skip
    error = truth.optimal_error * optimal
    given = optimal + error * rng.standard_normal()
    curve = pd.DataFrame(
        {"sigma": sigma, "loss": given, "stderr": error,
         "lower": given - NORMAL_95 * error, "upper": given + NORMAL_95 * error}
    )  # fmt: skip
    return pd.concat(frames, ignore_index=True), curve
