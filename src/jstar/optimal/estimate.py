"""`optimal_loss`: from images and noise scales to the curve."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.config import ESTIMATORS
from jstar.errors import JstarError, nearest
from jstar.optimal.controls import Estimate, QueryTerms, draws_at, plain, query_terms, regress
from jstar.optimal.curve import OptimalLoss
from jstar.optimal.draws import systematic_sources
from jstar.optimal.moments import Moments, measure_moments
from jstar.optimal.points import Points, as_points, check_sigmas
from jstar.optimal.products import choose_precision, make_queries
from jstar.optimal.sums import FIELDS, stream_sums

DEFAULT_QUERIES = 4096
FORMS = ("pair+controls", "pair")
CHUNK_DRAWS = 2048  # draws in one product: bounds the memory whatever M
INTERVAL = 1.959964  # normal quantile of a 95 % interval

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
    form: str = "pair+controls",
    antithetic: bool = True,
    precision: str = "auto",
    device: torch.device | str | None = None,
    advance: Advance | None = None,
) -> OptimalLoss:
    """The optimal loss J*(sigma) = E|x0 - E[x0|x]|^2 / D of the empirical distribution of `images`.

    images: [N, ...], uint8 (x = (u - offset) * scale, by default -1..1) or floating point (taken
    as x, unless offset and scale are given). sigmas: [S], increasing noise scales in units of x.
    queries: noisy draws M, at most one an image while M <= N. labels: [N] integers, for
    exact_by_class: the posterior then runs over the points of the draw's class. mirror: the
    horizontally mirrored images are points too. form: `pair+controls` or `pair`. antithetic: use
    +eps and -eps of every draw. precision: `auto`, `int8` (uint8 images) or `fp32`.

    Loss and errors are means over the D dimensions, in the units of x squared.
    Raises JstarError for input that cannot be used. Source: arXiv 2506.13763, theorem 1.
    """
    points = as_points(images, scale=scale, offset=offset, mirror=mirror)
    sigma_S = check_sigmas(sigmas)
    if estimator not in ESTIMATORS:
        raise JstarError(
            f"estimator: '{estimator}' is unknown, allowed are {', '.join(ESTIMATORS)}"
            + nearest(estimator, ESTIMATORS)
        )
    if form not in FORMS:
        raise JstarError(f"form: '{form}' is unknown, allowed are {', '.join(FORMS)}")
    labels_N = _check_labels(labels, points, estimator)
    count = DEFAULT_QUERIES if queries is None else int(queries)
    if count < 2:
        raise JstarError(f"queries = {count} is not allowed, a standard error needs at least 2")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    moments = measure_moments(points, where)
    source_M = systematic_sources(moments.half_norm_N, count, seed, labels_N)
    sums, terms = _exact_sums(
        points, moments, source_M, points.scale / sigma_S, labels_N, seed,
        choose_precision(precision, points, where), where, 2 if antithetic else 1, advance,
    )  # fmt: skip
    return finish(points, moments, sigma_S, sums, terms, estimator, form, labels_N)


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


def _exact_sums(
    points: Points,
    moments: Moments,
    source_M: NDArray[np.int64],
    beta_S: NDArray[np.float64],
    labels_N: NDArray[np.int64] | None,
    seed: int,
    precision: str,
    device: torch.device,
    signs: int,
    advance: Advance | None,
) -> tuple[NDArray[np.float64], QueryTerms]:
    """Sums [G, M, S, F] over all points (of the draw's class), and the draws' projections."""
    number_M = np.arange(len(source_M))
    sums = np.zeros((signs, len(source_M), len(beta_S), FIELDS))
    parts: list[tuple[NDArray[np.int64], QueryTerms]] = []
    for rows_M, member_N in _groups(source_M, labels_N):
        inside = points if member_N is None else points.subset(member_N[member_N < points.images])
        local_M = source_M[rows_M]
        half_N, square = moments.half_norm_N, moments.square_N
        if member_N is not None:
            square = None if square is None else square[torch.from_numpy(member_N)]
            local_M = np.searchsorted(member_N, local_M)  # images first, then mirror images
            half_N = half_N[member_N]
        chunks = [
            make_queries(inside, local_M[part], number_M[rows_M[part]], seed, precision, device,
                         moments.anchor_D)
            for part in _parts(len(rows_M))
        ]  # fmt: skip
        half = torch.from_numpy(half_N.astype(np.float32)).to(device)
        sums[:, rows_M] = stream_sums(
            inside, chunks, torch.from_numpy(beta_S), half, square, signs=signs,
            tiles=inside.tiles(), advance=advance,
        ).numpy()  # fmt: skip
        for part, chunk in zip(_parts(len(rows_M)), chunks, strict=True):
            terms = query_terms(chunk.z_MD.cpu(), chunk.noise_MD.cpu(), moments)
            parts.append((rows_M[part], terms))
    return sums, QueryTerms.gather(parts)


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


def finish(
    points: Points,
    moments: Moments,
    sigma_S: NDArray[np.float64],
    sums_GMSF: NDArray[np.float64],
    terms: QueryTerms,
    estimator: str,
    form: str,
    labels_N: NDArray[np.int64] | None,
) -> OptimalLoss:
    """From the sums of all draws to the curve in the data scale, per dimension."""
    unit = points.scale**2 / points.dim
    estimates: list[Estimate] = []
    for s, sigma in enumerate(sigma_S):
        draws = draws_at(sigma / points.scale, sums_GMSF[:, :, s], terms, moments, points.dim)
        estimates.append(regress(draws) if form != "pair" else plain(draws.pair_M, "pair"))
    loss = unit * np.array([e.value for e in estimates])
    stderr = unit * np.array([e.stderr for e in estimates])
    return OptimalLoss(
        sigma=sigma_S,
        loss=loss,
        stderr=stderr,
        lower=np.maximum(loss - INTERVAL * stderr, 0.0),
        upper=loss + INTERVAL * stderr,
        correlation_SS=_correlation(np.stack([e.residual_M for e in estimates], axis=1)),
        form=tuple(e.form for e in estimates),
        estimator=estimator,
        queries=sums_GMSF.shape[1],
        count=len(points),
        dim=points.dim,
        variance=unit * moments.variance,
        log_count=_log_count(len(points), labels_N),
    )


def _correlation(residual_MS: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the errors between noise scales, from successive differences; 1 at home."""
    step = np.diff(residual_MS, axis=0)
    covariance = step.T @ step
    size = np.sqrt(np.diag(covariance))
    size = np.where(size > 0, size, 1.0)
    out: NDArray[np.float64] = covariance / np.outer(size, size)
    np.fill_diagonal(out, 1.0)
    return out


def _log_count(count: int, labels_N: NDArray[np.int64] | None) -> float:
    """ln N, or sum_c (N_c / N) ln N_c when the posterior runs over one class."""
    if labels_N is None:
        return float(np.log(count))
    sizes = np.unique(labels_N, return_counts=True)[1]
    return float((sizes / count) @ np.log(sizes))
