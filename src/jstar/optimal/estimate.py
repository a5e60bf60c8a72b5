"""`optimal_loss`: from images and noise scales to the curve."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.config import ESTIMATORS, EXACT_ESTIMATORS
from jstar.errors import JstarError, nearest
from jstar.optimal.components import component_draws, posterior_variances
from jstar.optimal.controls import Estimate, QueryTerms, draws_at, plain, query_terms, regress
from jstar.optimal.curve import OptimalLoss
from jstar.optimal.draws import noise, systematic_sources
from jstar.optimal.moments import Moments, measure_moments
from jstar.optimal.points import Points, as_points, check_sigmas
from jstar.optimal.posterior import mean_of_points
from jstar.optimal.products import choose_precision, make_queries
from jstar.optimal.subsets import DEFAULT_REPEATS, SubsetPlan, subset_curve
from jstar.optimal.sums import FIELDS, stream_sums

DEFAULT_QUERIES = 4096
FORMS = ("pair+controls", "pair", "moment")
CHUNK_DRAWS = 2048  # draws in one product: bounds the memory whatever M
INTERVAL = 1.959964  # normal quantile of a 95 % interval
ROUNDS = 4  # of the stopping rule: every 4th draw, ..., each a systematic sample by itself
RELEVANT = 1e-3  # of the variance: the stopping rule looks at noise scales with J* above this

Advance = Callable[[float], None]


def optimal_loss(
    images: Any,
    sigmas: Any,
    *,
    estimator: str = "exact",
    labels: Any = None,
    queries: int | None = None,
    seed: int = 0,
    scale: float | None = None,
    offset: float | None = None,
    mirror: bool = False,
    spread: Any = None,
    form: str = "pair+controls",
    antithetic: bool = True,
    precision: str = "auto",
    relative_se: float | None = None,
    seconds: float | None = None,
    subset: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    own_weight: float | None = None,
    device: torch.device | str | None = None,
    advance: Advance | None = None,
) -> OptimalLoss:
    """The optimal loss J*(sigma) = E|x0 - E[x0|x]|^2 / D of the empirical distribution of `images`.

    images: [N, ...], uint8 (x = (u - offset) * scale, by default -1..1) or floating point (taken
    as x, unless offset and scale are given). sigmas: [S], increasing noise scales in units of x.
    queries: noisy draws M, at most one an image while M <= N. labels: [N] integers, for
    exact_by_class: the posterior then runs over the points of the draw's class. mirror: the
    horizontally mirrored images are points too. spread: [N, ...], each point is the centre of a
    Gaussian component of these standard deviations (sampled latents). form: `pair+controls`
    (its standard error is honest from 4,096 draws on), `pair`, or the paper's `moment`, which
    needs D* itself and so two more products for every noise scale. antithetic: use +eps and -eps
    of every draw. precision: `auto`, `int8` (uint8 images) or `fp32`.

    relative_se, seconds: stop after a quarter, half or three quarters of the draws when every
    relative standard error (where J* is above 0.1 % of the variance) is small enough, or when the
    next quarter would not end in time; `.ended` says which.

    subset, repeats, own_weight: for snis, dol and cdol: L points in each of so many random subsets,
    and the constant C (the source's own term has weight 1/C; default 4N/L, 1 at L = N).

    Loss and errors are means over the D dimensions, in the units of x squared.
    Raises JstarError for input that cannot be used. Source: arXiv 2506.13763, theorem 1.
    """
    if estimator not in ESTIMATORS:
        raise JstarError(
            f"estimator: '{estimator}' is unknown, allowed are {', '.join(ESTIMATORS)}"
            + nearest(estimator, ESTIMATORS)
        )
    points = as_points(images, scale=scale, offset=offset, mirror=mirror, spread=spread)
    if spread is not None and estimator != "exact":
        raise JstarError(f"spread: estimator '{estimator}' is not allowed with it, only 'exact' is")
    if len(points) < 2 and spread is None:
        raise JstarError("images: 1 image given, at least 2 are needed (of one point J* is 0)")
    if estimator not in EXACT_ESTIMATORS:
        plan = SubsetPlan(subset, repeats, own_weight)
        count = DEFAULT_QUERIES if queries is None else int(queries)
        where = _device(device)
        return subset_curve(points, check_sigmas(sigmas), estimator, plan, count, seed, where)
    job = make_job(
        points, sigmas, estimator=estimator, labels=labels, queries=queries, seed=seed, form=form,
        antithetic=antithetic, precision=precision, device=device,
    )  # fmt: skip
    if spread is not None:
        return job.component_curve(advance)
    if form == "moment":
        if relative_se is not None or seconds is not None:
            raise JstarError("form: 'moment' is not allowed with relative_se or seconds")
        return job.moment_curve(advance)
    if relative_se is None and seconds is None:
        return job.curve(job.sums(advance=advance))
    return _until(job, relative_se, seconds, advance)


def _until(
    job: "Job", relative_se: float | None, seconds: float | None, advance: Advance | None
) -> OptimalLoss:
    """Add quarters of the draws until an error target or a time budget ends it."""
    for name, value in (("relative_se", relative_se), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise JstarError(f"{name} = {value:g} is not allowed, it must be above 0")
    count, start = len(job.source_M), time.monotonic()
    done, parts = [], []
    for number, offset in enumerate((0, 2, 1, 3)):  # halves are evenly spread, too
        rows_M = np.arange(offset, count, ROUNDS)
        if len(rows_M) < 2:
            rows_M = np.arange(count)
        done.append(rows_M)
        parts.append(job.part(rows_M).sums(advance=advance))
        all_M = np.concatenate(done)
        order = np.argsort(all_M)
        sums = np.concatenate(parts, axis=1)[:, order]
        curve = job.part(all_M[order]).curve(sums)
        shown = curve.loss > RELEVANT * curve.variance
        if relative_se and (curve.stderr[shown] <= relative_se * curve.loss[shown]).all():
            return replace(curve, ended="relative_se")
        spent = time.monotonic() - start
        if len(all_M) >= count:
            break
        if seconds is not None and spent * (number + 2) / (number + 1) > seconds:
            return replace(curve, ended="seconds")
    return replace(curve, ended="queries")


def _device(device: torch.device | str | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Job:
    """An exact estimate, ready to run: draws and moments are fixed, sums may come from shards."""

    points: Points
    moments: Moments
    sigma_S: NDArray[np.float64]
    source_M: NDArray[np.int64]
    number_M: NDArray[np.int64]  # of the draws: their noise is a function of (seed, number)
    labels_N: NDArray[np.int64] | None
    seed: int
    estimator: str
    form: str
    signs: int
    precision: str
    device: torch.device

    def part(self, rows_M: NDArray[np.int64]) -> "Job":
        """The same estimate from some of the draws."""
        return replace(self, source_M=self.source_M[rows_M], number_M=self.number_M[rows_M])

    def sums(
        self, shard: tuple[int, int] = (1, 1), advance: Advance | None = None
    ) -> NDArray[np.float64]:
        """Sums [G, M, S, F] over shard k of n (1-based) of the points; shards just add."""
        number, shards = shard
        out = np.zeros((self.signs, len(self.source_M), len(self.sigma_S), FIELDS))
        beta_S = torch.from_numpy(self.points.scale / self.sigma_S)
        seen = 0
        for rows_M, member_N in _groups(self.source_M, self.labels_N):
            inside, local_M, half_N, square = self._inside(rows_M, member_N)
            tiles = list(inside.tiles())
            mine = [t for k, t in enumerate(tiles, seen) if k % shards == number - 1]
            seen += len(tiles)
            if not mine:
                continue
            chunks = [
                make_queries(
                    inside, local_M[part], self.number_M[rows_M[part]], self.seed, self.precision,
                    self.device, self.moments.anchor_D,
                )
                for part in _parts(len(rows_M))
            ]  # fmt: skip
            half = torch.from_numpy(half_N.astype(np.float32)).to(self.device)
            out[:, rows_M] = stream_sums(
                inside, chunks, beta_S.to(self.device), half, square,
                signs=self.signs, tiles=mine, advance=advance,
            ).numpy()  # fmt: skip
        return out

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

    def terms(self) -> QueryTerms:
        """Projections of the draws for the control variates."""
        parts = []
        for part in _parts(len(self.source_M)):
            chunk = make_queries(
                self.points, self.source_M[part], self.number_M[part], self.seed, self.precision,
                torch.device("cpu"), self.moments.anchor_D,
            )  # fmt: skip
            source_M, group_N = self.source_M[part], self.moments.group_N
            group_M = np.zeros_like(source_M) if group_N is None else group_N[source_M]
            parts.append(query_terms(chunk.z_MD, chunk.noise_MD, group_M, self.moments))
        return QueryTerms.gather(parts)

    def curve(self, sums_GMSF: NDArray[np.float64]) -> OptimalLoss:
        """From the sums of all draws to the curve in the data scale, per dimension."""
        points, moments, terms = self.points, self.moments, self.terms()
        unit = points.scale**2 / points.dim
        estimates: list[Estimate] = []
        for s, sigma in enumerate(self.sigma_S):
            tau = sigma / points.scale
            draws = draws_at(tau, sums_GMSF[:, :, s], terms, moments)
            estimates.append(regress(draws) if self.form != "pair" else plain(draws.pair_M, "pair"))
        return self._curve(estimates, unit * moments.variance)

    def moment_curve(self, advance: Advance | None = None) -> OptimalLoss:
        """The curve in the paper's form A - |D*|^2, taken about the anchor."""
        points, moments = self.points, self.moments
        value_SM = np.full((len(self.sigma_S), len(self.source_M)), moments.total)
        for rows_M, member_N in _groups(self.source_M, self.labels_N):
            inside, local_M, _, _ = self._inside(rows_M, member_N)
            for part in _parts(len(rows_M)):
                chunk = make_queries(
                    inside, local_M[part], self.number_M[rows_M[part]], self.seed, self.precision,
                    torch.device("cpu"), moments.anchor_D,
                )  # fmt: skip
                for s, sigma in enumerate(self.sigma_S):
                    tau = float(sigma) / points.scale
                    for sign in (1, -1)[: self.signs]:
                        x_MD = chunk.z_MD.double() + sign * tau * chunk.noise_MD.double()
                        mean_MD = mean_of_points(inside, x_MD, tau, self.precision, self.device)
                        square_M = (mean_MD - moments.anchor_D).square().sum(1).numpy()
                        value_SM[s, rows_M[part]] -= square_M / self.signs
            if advance is not None:
                advance(len(inside))
        estimates = [plain(value_M, "moment") for value_M in value_SM]
        return self._curve(estimates, points.scale**2 / points.dim * moments.variance)

    def component_curve(self, advance: Advance | None = None) -> OptimalLoss:
        """The curve when every point is the centre of a Gaussian component."""
        points, estimates = self.points, []
        x0_MD = component_draws(points, self.source_M, self.number_M, self.seed)
        noise_MD = noise(self.seed, self.number_M, points.dim).double()
        for sigma in self.sigma_S:
            tau = float(sigma) / points.scale
            value_M = posterior_variances(points, x0_MD, noise_MD, tau, self.device)
            if self.signs == 2:
                value_M += posterior_variances(points, x0_MD, -noise_MD, tau, self.device)
            estimates.append(plain(value_M / self.signs, "posterior variance"))
            if advance is not None:
                advance(len(points) / len(self.sigma_S))
        spread_ND = np.asarray(points.spread_ND, dtype=np.float64)
        inside = float(np.square(spread_ND).sum(1).mean())
        unit = points.scale**2 / points.dim
        return self._curve(estimates, unit * (self.moments.variance + inside))

    def _curve(self, estimates: list[Estimate], variance: float) -> OptimalLoss:
        points, unit = self.points, self.points.scale**2 / self.points.dim
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
            variance=variance,
            log_count=np.inf
            if points.spread_ND is not None
            else _log_count(points, self.moments.half_norm_N, self.labels_N),
        )


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
    device: torch.device | str | None = None,
) -> Job:
    """Check the arguments of `optimal_loss`, read the points once, choose the draws."""
    sigma_S = check_sigmas(sigmas)
    if form not in FORMS:
        raise JstarError(f"form: '{form}' is unknown, allowed are {', '.join(FORMS)}")
    labels_N = _check_labels(labels, points, estimator)
    count = DEFAULT_QUERIES if queries is None else int(queries)
    if count < 2:
        raise JstarError(f"queries = {count} is not allowed, a standard error needs at least 2")
    where = _device(device)
    chosen = choose_precision(precision, points, where)
    moments = measure_moments(points, where, labels_N=labels_N)
    source_M = systematic_sources(moments.half_norm_N, count, seed, labels_N)
    return Job(
        points, moments, sigma_S, source_M, np.arange(count), labels_N, seed, estimator, form,
        2 if antithetic else 1, chosen, where,
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


def _parts(count: int) -> list[slice]:
    """Chunks of draws: one product each."""
    return [slice(first, first + CHUNK_DRAWS) for first in range(0, count, CHUNK_DRAWS)]


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
