"""An exact estimate as a job: its draws and moments are fixed, its sums may come from shards."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.config.choices import FORMS
from jstar.curve import OptimalLoss
from jstar.errors import JstarError, nearest
from jstar.optimal.draws import noise, systematic_sources
from jstar.optimal.exact.control_variates import (
    Estimate,
    QueryTerms,
    draws_at,
    plain,
    query_terms,
    regress,
    weighted,
)
from jstar.optimal.exact.distances import Queries, choose_precision, make_queries
from jstar.optimal.exact.mixture import component_draws, posterior_moments
from jstar.optimal.exact.moments import Moments, measure_moments
from jstar.optimal.exact.softmax_sums import FIELDS, stream_sums
from jstar.optimal.paper.moment_form import mean_squares, rows_at_a_time
from jstar.optimal.points import Points, check_sigmas

DEFAULT_QUERIES = 4096
CHUNK_DRAWS = 2048  # draws in one product: bounds the memory whatever M
INTERVAL = 1.959964  # normal quantile of a 95 % interval

Advance = Callable[[float], None]


def default_device(device: torch.device | str | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Job:
    """An exact estimate, ready to run.

    First `sums`, which may be had from shards and from parts of the draws, then `curve` of them.
    """

    points: Points
    moments: Moments
    sigma_S: NDArray[np.float64]
    source_M: NDArray[np.int64]
    number_M: NDArray[np.int64]  # of the draws: their noise is a function of (seed, number)
    labels_N: NDArray[np.int64] | None
    label_drop: float
    seed: int
    estimator: str
    form: str
    signs: int
    precision: str
    device: torch.device

    @property
    def additive(self) -> bool:
        """Whether the sums of shards add up: not where every draw needs its posterior mean."""
        return self.form != "moment" and self.points.spread_ND is None

    def part(self, rows_M: NDArray[np.int64]) -> "Job":
        """The same estimate from some of the draws."""
        return replace(self, source_M=self.source_M[rows_M], number_M=self.number_M[rows_M])

    def sums(
        self, shard: tuple[int, int] = (1, 1), advance: Advance | None = None
    ) -> NDArray[np.float64]:
        """What each draw needs of the points of shard k of n (1-based), [G, M, S, F].

        Sums over the points, which of shards just add; or, where the job is not additive, the
        draw's value of the form, G = F = 1. With label drop the same again without labels,
        beside it along G.
        """
        if shard != (1, 1) and not self.additive:
            raise ValueError("the sums of such a job do not add up over shards")
        return np.concatenate([view._sums(shard, advance) for _, view in self._views()])

    def curve(self, sums_GMSF: NDArray[np.float64]) -> OptimalLoss:
        """From the sums of all draws to the curve in the data scale, per dimension."""
        views = self._views()
        per_view = zip(views, np.split(sums_GMSF, len(views)), strict=True)
        estimates_VS = [view._estimates(sums) for (_, view), sums in per_view]
        shares = [share for share, _ in views]
        points, unit = self.points, self.points.scale**2 / self.points.dim
        estimates = [weighted(shares, same) for same in zip(*estimates_VS, strict=True)]
        loss = unit * np.array([e.value for e in estimates])
        stderr = unit * np.array([e.stderr for e in estimates])
        return OptimalLoss(
            sigma=self.sigma_S,
            loss=loss,
            stderr=stderr,
            lower=np.maximum(loss - INTERVAL * stderr, 0.0),
            upper=loss + INTERVAL * stderr,
            correlation_SS=_correlation(np.stack([e.residual_M for e in estimates], axis=1)),
            form=tuple(e.form for e in estimates),
            estimator=self.estimator,
            queries=len(self.source_M),
            count=len(points),
            dim=points.dim,
            variance=unit * sum(share * view._variance() for share, view in views),
            log_count=sum(share * view._log_count() for share, view in views),
        )

    def _views(self) -> list[tuple[float, "Job"]]:
        """(share, job): this one, or with label drop q the labelled and the unlabelled draws.

        The unlabelled share has the unconditional optimal loss (METHOD section 1, item 7).
        """
        labelled = replace(self, label_drop=0.0)
        if self.label_drop == 0:
            return [(1.0, labelled)]
        whole = replace(labelled, labels_N=None, moments=self.moments.merged())
        return [(1 - self.label_drop, labelled), (self.label_drop, whole)]

    def _sums(self, shard: tuple[int, int], advance: Advance | None) -> NDArray[np.float64]:
        if self.points.spread_ND is not None:
            return self._component_values(advance)[None, :, :, None]
        if self.form == "moment":
            return self._moment_values(advance)[None, :, :, None]
        number, shards = shard
        out = np.zeros((self.signs, len(self.source_M), len(self.sigma_S), FIELDS))
        beta_S = torch.from_numpy(self.points.scale / self.sigma_S).to(self.device)
        seen = 0
        for rows_M, member_N in _groups(self.source_M, self.labels_N):
            inside, local_M, half_N, square = self._inside(rows_M, member_N)
            tiles = list(inside.tiles())
            mine = [t for k, t in enumerate(tiles, seen) if k % shards == number - 1]
            seen += len(tiles)
            if not mine:
                continue
            chunks = [
                self._queries(inside, local_M[part], rows_M[part]) for part in _parts(len(rows_M))
            ]
            half = torch.from_numpy(half_N.astype(np.float32)).to(self.device)
            out[:, rows_M] = stream_sums(
                inside, chunks, beta_S, half, square,
                signs=self.signs, tiles=mine, advance=advance,
            ).numpy()  # fmt: skip
        return out

    def _moment_values(self, advance: Advance | None) -> NDArray[np.float64]:
        """The paper's form A - |D*|^2 of every draw, taken about the anchor, [M, S]."""
        value_MS = np.full((len(self.source_M), len(self.sigma_S)), self.moments.total)
        beta_S = [self.points.scale / float(sigma) for sigma in self.sigma_S]
        rows = rows_at_a_time(len(beta_S), self.signs, self.points.dim)
        for rows_M, member_N in _groups(self.source_M, self.labels_N):
            inside, local_M, _, _ = self._inside(rows_M, member_N)
            for part in _parts(len(rows_M), rows):
                chunk = self._queries(inside, local_M[part], rows_M[part])
                square_SM = mean_squares(inside, chunk, beta_S, self.signs, self.moments.anchor_D)
                value_MS[rows_M[part]] -= square_SM.T
                if advance is not None:
                    advance(len(inside) * len(chunk) / len(rows_M))
        return value_MS

    def _component_values(self, advance: Advance | None) -> NDArray[np.float64]:
        """Variance of each draw's posterior where every point is a Gaussian's centre, [M, S]."""
        value_MS = np.empty((len(self.source_M), len(self.sigma_S)))
        for rows_M, member_N in _groups(self.source_M, self.labels_N):
            inside = self._inside(rows_M, member_N)[0]
            x0_MD = component_draws(
                self.points, self.source_M[rows_M], self.number_M[rows_M], self.seed
            )
            noise_MD = noise(self.seed, self.number_M[rows_M], self.points.dim).double()
            for s, sigma in enumerate(self.sigma_S):
                tau = float(sigma) / self.points.scale
                both = [
                    posterior_moments(inside, x0_MD + sign * tau * noise_MD, tau, self.device)[1]
                    for sign in (1, -1)[: self.signs]
                ]
                value_MS[rows_M, s] = np.mean(both, axis=0)
                if advance is not None:
                    advance(len(inside) / len(self.sigma_S))
        return value_MS

    def _queries(
        self, inside: Points, local_M: NDArray[np.int64], rows_M: NDArray[np.int64]
    ) -> Queries:
        return make_queries(
            inside, local_M, self.number_M[rows_M], self.seed, self.precision, self.device,
            self.moments.anchor_D,
        )  # fmt: skip

    def _inside(
        self, rows_M: NDArray[np.int64], member_N: NDArray[np.int64] | None
    ) -> tuple[Points, NDArray[np.int64], NDArray[np.float64], torch.Tensor | None]:
        """Points of a group, the draws' sources among them, and their norms."""
        half_N, square = self.moments.half_norm_N, self.moments.square_N
        if member_N is None:
            return self.points, self.source_M[rows_M], half_N, square
        inside = self.points.subset(member_N[member_N < self.points.images])
        local_M = np.searchsorted(member_N, self.source_M[rows_M])  # images, then mirror images
        square = None if square is None else square[torch.from_numpy(member_N).to(square.device)]
        return inside, local_M, half_N[member_N], square

    def _terms(self) -> QueryTerms:
        """Projections of the draws for the control variates."""
        parts = []
        for part in _parts(len(self.source_M)):
            chunk = replace(self, device=torch.device("cpu"))._queries(
                self.points, self.source_M[part], np.arange(len(self.source_M))[part]
            )
            source_M, group_N = self.source_M[part], self.moments.group_N
            group_M = np.zeros_like(source_M) if group_N is None else group_N[source_M]
            parts.append(query_terms(chunk.z_MD, chunk.noise_MD, group_M, self.moments))
        return QueryTerms.gather(parts)

    def _estimates(self, sums_GMSF: NDArray[np.float64]) -> list[Estimate]:
        """J* at each noise scale, in stored units, summed over the dimensions."""
        if not self.additive:
            name = "moment" if self.form == "moment" else "posterior variance"
            return [plain(value_M, name) for value_M in sums_GMSF[0, :, :, 0].T]
        terms, estimates = self._terms(), []
        for s, sigma in enumerate(self.sigma_S):
            draws = draws_at(sigma / self.points.scale, sums_GMSF[:, :, s], terms, self.moments)
            estimates.append(regress(draws) if self.form != "pair" else plain(draws.pair_M, "pair"))
        return estimates

    def _variance(self) -> float:
        """J* at infinite sigma: within the classes where the posterior knows the class."""
        if self.points.spread_ND is None:
            return self.moments.variance
        return self.moments.variance + self.points.mean_square_spread()

    def _log_count(self) -> float:
        if self.points.spread_ND is not None:
            return np.inf
        return _log_count(self.points, self.moments.half_norm_N, self.labels_N)


def make_job(
    points: Points,
    sigmas: Any,
    *,
    estimator: str,
    labels: Any = None,
    queries: int | None = None,
    seed: int = 0,
    form: str = "pair+controls",
    antithetic: bool = True,
    precision: str = "auto",
    label_drop: float = 0.0,
    device: torch.device | str | None = None,
) -> Job:
    """Check the arguments of `optimal_loss`, read the points once, choose the draws."""
    sigma_S = check_sigmas(sigmas)
    if form not in FORMS:
        raise JstarError(
            f"form: '{form}' is unknown, allowed are {', '.join(FORMS)}{nearest(form, FORMS)}"
        )
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
    return Job(
        points, moments, sigma_S, source_M, np.arange(count), labels_N, label_drop, seed,
        estimator, form, 2 if antithetic else 1, chosen, where,
    )  # fmt: skip


def _check_labels(labels: Any, points: Points, estimator: str) -> NDArray[np.int64] | None:
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


def _parts(count: int, size: int = CHUNK_DRAWS) -> list[slice]:
    """Chunks of draws: one product each."""
    return [slice(first, first + size) for first in range(0, count, size)]


def _groups(
    source_M: NDArray[np.int64], labels_N: NDArray[np.int64] | None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64] | None]]:
    """(draws, points) that belong together: one group, or one for each class."""
    if labels_N is None:
        return [(np.arange(len(source_M)), None)]
    classes_M = labels_N[source_M]
    return [
        (np.flatnonzero(classes_M == c), np.flatnonzero(labels_N == c))
        for c in np.unique(classes_M)
    ]


def _correlation(residual_MS: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the errors between noise scales, from successive differences; 1 at home."""
    step = np.diff(residual_MS, axis=0)
    covariance = step.T @ step
    size = np.sqrt(np.diag(covariance))
    size = np.where(size > 0, size, 1.0)
    out: NDArray[np.float64] = covariance / np.outer(size, size)
    np.fill_diagonal(out, 1.0)
    return out


def _log_count(
    points: Points, key_N: NDArray[np.float64], labels_N: NDArray[np.int64] | None
) -> float:
    """What the closure must come to: the entropy of the point, given its class if there is one.

    ln N for N distinct points; a point that is there c times takes (c / N) ln c off.
    """
    count = len(points)
    label_N = np.zeros(count, dtype=np.int64) if labels_N is None else labels_N
    sizes = np.unique(label_N, return_counts=True)[1]
    entropy = float((sizes / count) @ np.log(sizes))
    # Equal points have equal norms: only those need to be looked at.
    _, place_N, times = np.unique(key_N, return_inverse=True, return_counts=True)
    candidate_M = np.flatnonzero(times[place_N] > 1)
    seen: dict[bytes, int] = {}
    for part in _parts(len(candidate_M)):
        rows = points.take(candidate_M[part]).numpy()
        for row, label in zip(rows, label_N[candidate_M[part]], strict=True):
            name = hashlib.blake2b(row.tobytes(), digest_size=16, key=str(label).encode()).digest()
            seen[name] = seen.get(name, 0) + 1
    several = np.array([c for c in seen.values() if c > 1], dtype=np.float64)
    return entropy - float((several * np.log(several)).sum()) / count
