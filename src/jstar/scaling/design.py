"""A study before it is paid for: its sizes and images, and synthetic studies of it under a law."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jstar.errors import JstarError
from jstar.scaling.joint_many import correlated
from jstar.scaling.laws import Array

SIGMA = 1.0  # the one noise scale of a synthetic study
COMPUTE = 6.0  # FLOPs per parameter and image of a synthetic study


@dataclass(frozen=True)
class StudyDesign:
    """Which sizes see how many images. Each R: params, seeds, and the images of all snapshots.

    flops_per_image: training compute of one image, by size; default: 6 N.
    """

    params: tuple[float, ...]
    images: tuple[tuple[float, ...], ...]
    seeds: tuple[int, ...]
    flops_per_image: tuple[float, ...] | None = None

    @classmethod
    def even(
        cls, params: Sequence[float], images: Sequence[float], snapshots: int, first: float
    ) -> "StudyDesign":
        """Snapshots log-spaced from `first` (a share of the run) to each size's images.

        One snapshot is the run's last.
        """
        steps = tuple(tuple(np.geomspace(d, first * d, snapshots)[::-1]) for d in images)
        return cls(tuple(params), steps, (1,) * len(params))

    @classmethod
    def iso_flop(
        cls, params: Sequence[float], budgets: Sequence[float], cost: Sequence[float]
    ) -> "StudyDesign":
        """Every size trained to each budget in a run of its own, measured at its end only."""
        runs = [(n, (f / c,), c) for n, c in zip(params, cost, strict=True) for f in budgets]
        sizes, images, costs = zip(*runs, strict=True)
        return cls(sizes, images, (1,) * len(runs), costs)

    @classmethod
    def of_table(cls, losses: pd.DataFrame) -> "StudyDesign":
        """The design behind a table of losses with the columns run, params, images and flops."""
        rows = losses.drop_duplicates(["run", "images"]).sort_values(["params", "images"])
        by_size = list(rows.groupby("params"))
        images = tuple(tuple(sorted(set(part["images"]))) for _, part in by_size)
        cost = tuple(float((part["flops"] / part["images"]).median()) for _, part in by_size)
        seeds = tuple(part["run"].nunique() for _, part in by_size)
        return cls(tuple(float(str(n)) for n, _ in by_size), images, seeds, cost)

    @property
    def cost(self) -> Array:
        """FLOPs per image of each size, [R]."""
        if self.flops_per_image is not None:
            return np.array(self.flops_per_image)
        return COMPUTE * np.array(self.params)

    @property
    def middle(self) -> tuple[float, float]:
        """Geometric means of the sizes and of all snapshots' images."""
        every = np.concatenate(self.images)
        return float(np.exp(np.mean(np.log(self.params)))), float(np.exp(np.mean(np.log(every))))


@dataclass(frozen=True)
class JointTruth:
    """J = E + gap, gap = A (N/N0)^-a + B (D/D0)^-b, 1 in the middle of the design.

    part: A there; default: what makes the middle of the design compute-optimal.
    floor: E in units of J*: 0 no floor, 1 the floor J*, more: a floor above it. optimal: J*, in
    units of the gap in the middle; where there is no floor, as a share of the smallest loss.
    size_noise, run_noise, snapshot_noise: relative errors of the gap, of a size (its seeds share
    it), of a run and from snapshot to snapshot, the latter with `correlation` between neighbours.
    optimal_error: relative error of J*, by which it is off; the gap is then loss - J*, otherwise
    measured directly.
    """

    a: float = 0.35
    b: float = 0.35
    floor: float = 1.0
    optimal: float = 1.0
    size_noise: float = 0.0
    run_noise: float = 0.01
    snapshot_noise: float = 0.003
    correlation: float = 0.0
    optimal_error: float = 0.0
    part: float | None = None

    @property
    def alpha(self) -> float:
        """Exponent of J - E along the optimal sizes."""
        return -self.a * self.b / (self.a + self.b)

    def terms(self) -> tuple[float, float]:
        """A and B."""
        part = self.b / (self.a + self.b) if self.part is None else self.part
        return part, 1 - part


def simulate_design(
    design: StudyDesign, truth: JointTruth, seed: int, index: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of losses and of J* of one synthetic study, a pure function of (seed, index)."""
    if not 0 <= truth.correlation < 1:
        raise JstarError(f"correlation = {truth.correlation:g}, allowed are 0 up to below 1")
    rng = np.random.default_rng([seed, index])
    (n0, d0), (by_size, by_data) = design.middle, truth.terms()
    frames = []
    for size, (params, images, seeds) in enumerate(
        zip(design.params, design.images, design.seeds, strict=True)
    ):
        data = np.array(images)
        gap = by_size * (params / n0) ** -truth.a + by_data * (data / d0) ** -truth.b
        if truth.size_noise:  # no draw without it: studies stay what they were
            gap *= np.exp(truth.size_noise * rng.standard_normal())
        for s in range(seeds):
            along = np.r_[0.0, np.full(len(data) - 1, truth.correlation)]
            noise = correlated(rng.standard_normal((1, len(data))), along)[0]
            luck = truth.run_noise * rng.standard_normal() + truth.snapshot_noise * noise
            frames.append(
                pd.DataFrame(
                    {
                        "run": f"n{size}-s{s}", "model": f"n{size}", "params": params, "seed": s,
                        "snapshot": np.arange(len(data)), "images": data,
                        "flops": design.cost[size] * data, "sigma": SIGMA,
                        "loss": gap * np.exp(luck),
                    }
                )
            )  # fmt: skip
    losses = pd.concat(frames, ignore_index=True)
    optimal = truth.optimal if truth.floor else truth.optimal * float(losses["loss"].min())
    losses["loss"] += truth.floor * truth.optimal
    error = truth.optimal_error * optimal
    given = optimal + error * rng.standard_normal()
    if not truth.optimal_error:
        losses["gap"] = losses["loss"] - optimal
    curve = pd.DataFrame({"sigma": [SIGMA], "loss": [given], "stderr": [error]})
    return losses, curve
