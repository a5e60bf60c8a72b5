"""FID, KID, precision and recall of feature sets, with errors over the generated images.

Arrays are NumPy float64; features [N, F]. The reference set is the data itself: what is uncertain
is which images were generated, so every standard error is over these.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.errors import JstarError

Floats = NDArray[np.float64]

GROUPS = 20  # of KID's jackknife
LEFT_OUT = 4096  # images of which FID's error is made, at most: they know it to about 1 %
ROOT_REACH, ROOT_STEP = 16.0, 0.8  # of the integral over ln s, see _lost_from_trace_of_root
NEIGHBOURS = 3  # k of precision and recall
BLOCK = 1024  # rows of a kernel or distance matrix held at a time


@dataclass(frozen=True)
class QualityEstimate:
    """A value and its standard error (jackknife over generated images)."""

    value: float
    se: float


@dataclass(frozen=True)
class FeatureMoments:
    """Count, mean [F] and covariance [F, F] (divided by N - 1) of a feature set."""

    count: int
    mean_F: Floats
    cov_FF: Floats


def feature_moments(features_NF: NDArray[np.floating]) -> FeatureMoments:
    """Moments of features [N, F], N at least 2."""
    x_NF = np.asarray(features_NF, dtype=np.float64)
    _check(x_NF, "features")
    return FeatureMoments(len(x_NF), x_NF.mean(axis=0), np.atleast_2d(np.cov(x_NF, rowvar=False)))


def merged_moments(a: FeatureMoments, b: FeatureMoments) -> FeatureMoments:
    """Moments of both sets together (Chan, Golub, LeVeque 1983)."""
    count = a.count + b.count
    apart_F = b.mean_F - a.mean_F
    between_FF = np.outer(apart_F, apart_F) * (a.count * b.count / count)
    within_FF = (a.count - 1) * a.cov_FF + (b.count - 1) * b.cov_FF
    return FeatureMoments(
        count, a.mean_F + apart_F * (b.count / count), (within_FF + between_FF) / (count - 1)
    )


def frechet(a: FeatureMoments, b: FeatureMoments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (FID: arXiv 1706.08500, eq. 6).

    The trace of the root is that of (C_a^(1/2) C_b C_a^(1/2))^(1/2), which is symmetric: no
    complex roots and no added diagonal.
    """
    root_FF = _root(b.cov_FF)
    apart = float(np.square(a.mean_F - b.mean_F).sum())
    cross = _trace_of_root(root_FF @ a.cov_FF @ root_FF)
    return float(apart + np.trace(a.cov_FF) + np.trace(b.cov_FF) - 2 * cross)


def _root(cov_FF: Floats) -> Floats:
    """C^(1/2) of a covariance."""
    value_F, basis_FF = np.linalg.eigh(cov_FF)
    return np.asarray((basis_FF * np.sqrt(np.maximum(value_F, 0))) @ basis_FF.T)


def _trace_of_root(matrix_FF: Floats) -> float:
    """tr M^(1/2) of a symmetric matrix without negative eigenvalues but for rounding."""
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(matrix_FF), 0)).sum())


def fid(generated_NF: NDArray[np.floating], reference: FeatureMoments) -> QualityEstimate:
    """Frechet distance of generated features to the reference.

    The error leaves out one image at a time, every one or LEFT_OUT of them. FID falls with the
    number of images: compare only values of equal N.
    """
    x_NF = np.asarray(generated_NF, dtype=np.float64)
    _check(x_NF, "generated features", GROUPS)
    count, mean_F = len(x_NF), x_NF.mean(axis=0)
    cov_FF = np.atleast_2d(np.cov(x_NF, rowvar=False))
    # The trace of the root is that of (L' C L)^(1/2) for any L with L L' = C_r: `frechet`'s is one.
    factor_FF = _factor(reference.cov_FF)
    value_F, basis_FF = np.linalg.eigh(factor_FF.T @ cov_FF @ factor_FF)
    value_F = np.maximum(value_F, 0)
    apart_F, scatter = mean_F - reference.mean_F, float(np.trace(cov_FF))
    known, cross = float(np.trace(reference.cov_FF)), float(np.sqrt(value_F).sum())
    whole = float(apart_F @ apart_F) + scatter + known - 2 * cross

    # Without image i the scatter matrix is less by N / (N - 1) d d', d = x_i - mean.
    turn_FF, left_out = factor_FF @ basis_FF, []
    picked = np.unique(np.linspace(0, count - 1, min(count, LEFT_OUT)).round().astype(int))
    for rows in _blocks(0, len(picked)):
        d_BF = x_NF[picked[rows]] - mean_F
        square_B = np.square(d_BF).sum(axis=1)
        weight_BF = np.square(d_BF @ turn_FF) * (count / (count - 1) ** 2)
        lost_B = _lost_from_trace_of_root(value_F, weight_BF)
        cross_B = np.sqrt((count - 1) / (count - 2)) * (cross - lost_B)
        scatter_B = ((count - 1) * scatter - count / (count - 1) * square_B) / (count - 2)
        apart_B = np.square(apart_F - d_BF / (count - 1)).sum(axis=1)
        left_out.append(apart_B + scatter_B + known - 2 * cross_B)
    return QualityEstimate(whole, _jackknife_se(np.concatenate(left_out), count))


def _factor(cov_FF: Floats) -> Floats:
    """L with L L' = C."""
    try:
        return np.asarray(np.linalg.cholesky(cov_FF))
    except np.linalg.LinAlgError:  # without full rank
        return _root(cov_FF)


def _lost_from_trace_of_root(value_F: Floats, weight_BF: Floats) -> Floats:
    """tr M^(1/2) - tr (M - u u')^(1/2) [B], of M's eigenvalues and u's squared parts along them.

    With sqrt(l) = 1/pi int_0^inf ln(1 + l / s^2) ds and det(A - u u') = det(A) (1 - u' A^-1 u) it
    is -1/pi int ln(1 - u' (s^2 + M)^-1 u) ds; equal steps of ln s, from 1e-7 to 1e7 of the
    largest root, give it to about 1e-5 (the poles are at the imaginary axis).
    """
    top = float(np.sqrt(value_F[-1])) or 1.0
    s_Q = top * np.exp(np.arange(-ROOT_REACH, ROOT_REACH + ROOT_STEP / 2, ROOT_STEP))
    share_BQ = weight_BF @ (1 / (s_Q**2 + value_F[:, None]))
    # Where there are no more images than features it comes to 1 at s = 0.
    logs_BQ = np.log1p(-np.minimum(share_BQ, 1 - np.finfo(np.float64).eps))
    return np.asarray(-(logs_BQ @ s_Q) * ROOT_STEP / np.pi)


def kid(
    generated_NF: NDArray[np.floating],
    reference_MF: NDArray[np.floating],
    groups: int = GROUPS,
) -> QualityEstimate:
    """Unbiased MMD^2 with the kernel (x.y / F + 1)^3 (arXiv 1801.01401): 0 for equal sets.

    All pairs, not random subsets: the value depends on no seed.
    """
    x_NF = np.asarray(generated_NF, dtype=np.float64)
    y_MF = np.asarray(reference_MF, dtype=np.float64)
    _check(x_NF, "generated features", groups)
    _check(y_MF, "reference features")
    x_NF = np.concatenate([x_NF[g::groups] for g in range(groups)])
    sizes_G = np.array([len(range(g, len(x_NF), groups)) for g in range(groups)])
    edges = np.concatenate([[0], np.cumsum(sizes_G)])
    own_GG, own_trace_G = np.zeros((groups, groups)), np.zeros(groups)
    cross_G = np.zeros(groups)
    for g in range(groups):
        for rows in _blocks(edges[g], edges[g + 1]):
            kernel_BN = _kernel(x_NF[rows], x_NF)
            own_GG[g] += np.add.reduceat(kernel_BN.sum(axis=0), edges[:-1])
            own_trace_G[g] += _kernel_diagonal(x_NF[rows]).sum()
            cross_G[g] += _kernel(x_NF[rows], y_MF).sum()
    real = sum(_kernel(y_MF[rows], y_MF).sum() for rows in _blocks(0, len(y_MF)))
    real = (real - _kernel_diagonal(y_MF).sum()) / (len(y_MF) * (len(y_MF) - 1))

    def of(kept_G: NDArray[np.bool_]) -> float:
        n = int(sizes_G[kept_G].sum())
        own = own_GG[np.ix_(kept_G, kept_G)].sum() - own_trace_G[kept_G].sum()
        return float(own / (n * (n - 1)) + real - 2 * cross_G[kept_G].sum() / (n * len(y_MF)))

    number = np.arange(groups)
    return QualityEstimate(of(number >= 0), _jackknife_se([of(number != g) for g in range(groups)]))


def precision_recall(
    generated_NF: NDArray[np.floating],
    reference_MF: NDArray[np.floating],
    neighbours: int = NEIGHBOURS,
) -> tuple[QualityEstimate, QualityEstimate]:
    """Share of generated images inside the data's manifold, and of data inside theirs.

    A manifold is the union of balls that reach to each point's k-th neighbour (arXiv 1904.06991).
    The errors are those of a share of independent images, the manifolds taken as given.
    """
    x_NF = np.asarray(generated_NF, dtype=np.float64)
    y_MF = np.asarray(reference_MF, dtype=np.float64)
    for features, name in ((x_NF, "generated features"), (y_MF, "reference features")):
        _check(features, name, neighbours + 1)
    return _inside(x_NF, y_MF, neighbours), _inside(y_MF, x_NF, neighbours)


def _inside(point_NF: Floats, manifold_MF: Floats, neighbours: int) -> QualityEstimate:
    reach_M = np.concatenate(
        [
            # The nearest "neighbour" of a point is the point itself.
            np.partition(_squared_distances(manifold_MF[rows], manifold_MF), neighbours, axis=1)[
                :, neighbours
            ]
            for rows in _blocks(0, len(manifold_MF))
        ]
    )
    hit_N = np.concatenate(
        [
            (_squared_distances(point_NF[rows], manifold_MF) <= reach_M).any(axis=1)
            for rows in _blocks(0, len(point_NF))
        ]
    )
    share = float(hit_N.mean())
    return QualityEstimate(share, float(np.sqrt(share * (1 - share) / len(hit_N))))


def _kernel(x_NF: Floats, y_MF: Floats) -> Floats:
    return np.asarray((x_NF @ y_MF.T / x_NF.shape[1] + 1) ** 3)


def _kernel_diagonal(x_NF: Floats) -> Floats:
    return np.asarray((np.square(x_NF).sum(axis=1) / x_NF.shape[1] + 1) ** 3)


def _squared_distances(x_NF: Floats, y_MF: Floats) -> Floats:
    inner_NM = x_NF @ y_MF.T
    norms = np.square(x_NF).sum(axis=1)[:, None] + np.square(y_MF).sum(axis=1)
    return np.asarray(np.maximum(norms - 2 * inner_NM, 0))


def _blocks(start: int, stop: int) -> list[slice]:
    return [slice(a, min(a + BLOCK, stop)) for a in range(int(start), int(stop), BLOCK)]


def _jackknife_se(left_out: list[float] | Floats, count: int | None = None) -> float:
    """Standard error from estimates that each leave one group or image of `count` out.

    count: where not all were left out in turn; default: they were.
    """
    value_G = np.asarray(left_out)
    parts = len(value_G) if count is None else count
    return float(np.sqrt((parts - 1) * np.square(value_G - value_G.mean()).mean()))


def _check(features_NF: Floats, name: str, groups: int = 1) -> None:
    """Raises JstarError for arrays that are no features, or too few of them."""
    least = max(2, 2 * groups)
    if features_NF.ndim != 2 or len(features_NF) < least:
        raise JstarError(
            f"{name}: have shape {features_NF.shape}, allowed is [N, F] with N at least {least}"
        )
    if not np.isfinite(features_NF).all():
        raise JstarError(f"{name}: hold NaN or infinite values, only finite numbers are allowed")
