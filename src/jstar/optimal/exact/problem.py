"""The problem that every exact form answers: points, draws and noise scales, all fixed."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.config import EXACT_ESTIMATORS
from jstar.errors import JstarError
from jstar.optimal.draws import systematic_sources
from jstar.optimal.exact.data_moments import DataMoments, measure_moments
from jstar.optimal.exact.distances import Queries, choose_precision, make_queries
from jstar.optimal.exact.regression import LossEstimate, mean_of_draws
from jstar.optimal.points import DataPoints, check_sigmas
from jstar.torch_device import default_device

DEFAULT_QUERIES = 4096
CHUNK_DRAWS = 2048  # draws in one product: bounds the memory whatever M

Advance = Callable[[float], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PointGroup:
    """Draws and the points that their posterior runs over: all of them, or those of one class.

    rows_M: numbers of the draws within the problem. source_M: their sources among `points`.
    half_norm_N, square_N: as in DataMoments.
    """

    rows_M: NDArray[np.int64]
    source_M: NDArray[np.int64]
    points: DataPoints
    half_norm_N: Floats
    square_N: torch.Tensor | None


@dataclass(frozen=True)
class ExactProblem:
    """Points, draws and noise scales. Whatever the form, the draws are the same."""

    points: DataPoints
    moments: DataMoments
    sigma_S: Floats
    source_M: NDArray[np.int64]
    number_M: NDArray[np.int64]  # of the draws: their noise is a function of (seed, number)
    labels_N: NDArray[np.int64] | None  # of all points, if the posterior knows the class
    label_drop: float
    seed: int
    signs: int  # 2: +eps and -eps of every draw
    precision: str
    device: torch.device

    @property
    def estimator(self) -> str:
        return EXACT_ESTIMATORS[self.labels_N is not None]

    def part(self, rows_M: NDArray[np.int64]) -> "ExactProblem":
        """The same problem with some of the draws."""
        return replace(self, source_M=self.source_M[rows_M], number_M=self.number_M[rows_M])

    def kinds(self) -> list[tuple[float, "ExactProblem"]]:
        """(share, problem): this one, or with label drop q the labelled and the unlabelled draws.

        The unlabelled share has the unconditional optimal loss (METHOD section 1, item 7).
        """
        labelled = replace(self, label_drop=0.0)
        if self.label_drop == 0:
            return [(1.0, labelled)]
        whole = replace(labelled, labels_N=None, moments=self.moments.merged())
        return [(1 - self.label_drop, labelled), (self.label_drop, whole)]

    def groups(self) -> Iterator[PointGroup]:
        """One group, or one for each class that has draws."""
        half_N, square = self.moments.half_norm_N, self.moments.square_N
        if self.labels_N is None:
            rows = np.arange(len(self.source_M))
            yield PointGroup(rows, self.source_M, self.points, half_N, square)
            return
        classes_M = self.labels_N[self.source_M]
        for label in np.unique(classes_M):
            rows = np.flatnonzero(classes_M == label)
            members = np.flatnonzero(self.labels_N == label)  # images, then mirror images
            yield PointGroup(
                rows,
                np.searchsorted(members, self.source_M[rows]),
                self.points.subset(members[members < self.points.images]),
                half_N[members],
                None if square is None else square[torch.from_numpy(members).to(square.device)],
            )

    def queries(self, group: PointGroup, part: slice) -> Queries:
        """Some draws of a group, ready for products with its points."""
        number_M = self.number_M[group.rows_M[part]]
        return make_queries(
            group.points, group.source_M[part], number_M, self.seed, self.precision, self.device,
            self.moments.anchor_D,
        )  # fmt: skip

    @property
    def variance(self) -> float:
        """J* at infinite sigma: within the classes where the posterior knows the class."""
        if self.points.spread_ND is None:
            return self.moments.variance
        return self.moments.variance + self.points.mean_square_spread()

    @property
    def log_count(self) -> float:
        """What the closure must come to: the entropy of the point, given its class if there is one.

        ln N for N distinct points; a point that is there c times takes (c / N) ln c off.
        """
        if self.points.spread_ND is not None:
            return np.inf
        count = len(self.points)
        label_N = np.zeros(count, dtype=np.int64) if self.labels_N is None else self.labels_N
        sizes = np.unique(label_N, return_counts=True)[1]
        entropy = float((sizes / count) @ np.log(sizes))
        # Equal points have equal norms: only those need to be looked at.
        _, place_N, times = np.unique(
            self.moments.half_norm_N, return_inverse=True, return_counts=True
        )
        candidates = np.flatnonzero(times[place_N] > 1)
        seen: dict[bytes, int] = {}
        for part in chunks_of(len(candidates)):
            rows = self.points.take(candidates[part]).numpy()
            for row, label in zip(rows, label_N[candidates[part]], strict=True):
                name = hashlib.blake2b(
                    row.tobytes(), digest_size=16, key=str(label).encode()
                ).digest()
                seen[name] = seen.get(name, 0) + 1
        several = np.array([c for c in seen.values() if c > 1], dtype=np.float64)
        return entropy - float((several * np.log(several)).sum()) / count


class DrawForm:
    """What each draw contributes to J*: one small class a form.

    By default a value that is known only with all points at hand: no shards, A = F = 1.
    """

    name: ClassVar[str]

    def values(self, problem: ExactProblem, advance: Advance | None) -> Floats:
        """The value of each draw, [M, S]."""
        raise NotImplementedError

    def sums(
        self, problem: ExactProblem, shard: tuple[int, int], advance: Advance | None
    ) -> Floats:
        """What each draw needs of the points of shard k of n (1-based), [A, M, S, F]."""
        if shard != (1, 1):
            raise ValueError("the values of such a form do not add up over shards")
        return self.values(problem, advance)[None, :, :, None]

    def estimates(self, problem: ExactProblem, sums_AMSF: Floats) -> list[LossEstimate]:
        """J* at each noise scale, in stored units, summed over the dimensions."""
        return [mean_of_draws(value_M, self.name) for value_M in sums_AMSF[0, :, :, 0].T]


def pose_problem(
    points: DataPoints, sigmas: Any, *, estimator: str, labels: Any = None,
    queries: int | None = None, seed: int = 0, antithetic: bool = True, precision: str = "auto",
    label_drop: float = 0.0, device: torch.device | str | None = None,
) -> ExactProblem:  # fmt: skip
    """Check the arguments of `optimal_loss`, read the points once, choose the draws."""
    sigma_S = check_sigmas(sigmas)
    labels_N = _check_labels(labels, points, estimator)
    if not 0 <= label_drop <= 1 or (label_drop and labels_N is None):
        raise JstarError(
            f"label_drop = {label_drop:g} is not allowed, it is a share of labels (0 to 1) and "
            "needs the estimator 'exact_by_class'"
        )
    count = DEFAULT_QUERIES if queries is None else int(queries)
    if count < 2:
        raise JstarError(f"queries = {count} is not allowed, a standard error needs at least 2")
    where = default_device(device)
    chosen = choose_precision(precision, points, where)
    moments = measure_moments(points, where, labels_N=labels_N)
    source_M = systematic_sources(moments.half_norm_N, count, seed, labels_N)
    return ExactProblem(
        points, moments, sigma_S, source_M, np.arange(count), labels_N, label_drop, seed,
        2 if antithetic else 1, chosen, where,
    )  # fmt: skip


def _check_labels(labels: Any, points: DataPoints, estimator: str) -> NDArray[np.int64] | None:
    """Labels of all points (mirror images too), if the estimator uses them."""
    if labels is not None and len(np.asarray(labels)) != points.images:
        raise JstarError(
            f"labels: {len(np.asarray(labels))} given for {points.images} images, "
            "one each is needed"
        )
    if estimator != "exact_by_class":
        return None
    if labels is None:
        raise JstarError("labels: are missing, the estimator 'exact_by_class' needs them")
    labels_N = np.asarray(labels)
    if labels_N.ndim != 1 or labels_N.dtype.kind not in "iu":
        raise JstarError(f"labels: are {labels_N.dtype} {labels_N.shape}, allowed is integer [N]")
    return np.tile(labels_N.astype(np.int64), 2 if points.mirror else 1)


def chunks_of(count: int, size: int = CHUNK_DRAWS) -> list[slice]:
    """Chunks of draws: one product each."""
    return [slice(first, first + size) for first in range(0, count, size)]
