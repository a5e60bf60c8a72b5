"""FID, KID, precision and recall of feature sets, with errors over the generated images.

Features are [N, F] NumPy arrays. The reference set is the data itself: what is uncertain
is which images were generated, so every standard error is over these.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.errors import JstarError

Floats = NDArray[np.float64]

LEAST = 40  # images of which FID and KID are told
LEFT_OUT = 4096  # images of which FID's error is made, at most: they know it to about 1 %
ROOT_REACH, ROOT_STEP = 16.0, 0.8  # of the integral over ln s, see _lost_from_trace_of_root
FAR = 100.0  # squared mean over variance from which float32 would show in KID
NEIGHBOURS = 3  # k of precision and recall
BLOCK = 1024  # rows and columns of a kernel or distance matrix held at a time


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
    _check(x_NF, "generated features", LEAST)
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


def kid(generated_NF: NDArray[np.floating], reference_MF: NDArray[np.floating]) -> QualityEstimate:
    """Unbiased MMD^2 with the kernel (x.y / F + 1)^3 (arXiv 1801.01401): 0 for equal sets.

    All pairs, not random subsets: the value depends on no seed. The error leaves out every image
    once. The products are in the features' own precision, float32 or float64; in float64 where
    they hardly vary about a large mean.
    """
    x_NF, y_MF = _pair(generated_NF, reference_MF)
    _check(x_NF, "generated features", LEAST)
    _check(y_MF, "reference features")
    if np.square(y_MF.mean(axis=0)).sum() > FAR * y_MF.var(axis=0).sum():
        x_NF, y_MF = x_NF.astype(np.float64), y_MF.astype(np.float64)
    n, m = len(x_NF), len(y_MF)
    own_N, cross_N = _kernel_sums(x_NF), _kernel_sums(x_NF, y_MF)
    real = _kernel_sums(y_MF).sum() / (m * (m - 1))
    own, cross = own_N.sum(), cross_N.sum()
    # Without image i, its pairs (i, j) and (j, i) go.
    left_out_N = (own - 2 * own_N) / ((n - 1) * (n - 2)) - 2 * (cross - cross_N) / ((n - 1) * m)
    whole = float(own / (n * (n - 1)) + real - 2 * cross / (n * m))
    return QualityEstimate(whole, _jackknife_se(left_out_N))


def _kernel_sums(x_NF: Floats, y_MF: Floats | None = None) -> Floats:
    """Sum of KID's kernel - 1 over j of (x_i, y_j), or of (x_i, x_j), j not i; float64 [N].

    The 1 would go out of KID again, and with it digits of small features.
    """
    sum_N = np.zeros(len(x_NF))
    for rows, columns, square in _tiles(len(x_NF), None if y_MF is None else len(y_MF)):
        other_BF = (x_NF if y_MF is None else y_MF)[columns]
        inner_BB = (x_NF[rows] / x_NF.shape[1]) @ other_BF.T
        kernel_BB = inner_BB + 3
        kernel_BB *= inner_BB
        kernel_BB += 3
        kernel_BB *= inner_BB
        if square:
            np.fill_diagonal(kernel_BB, 0)
        sum_N[rows] += kernel_BB.sum(axis=1, dtype=np.float64)
        if y_MF is None and not square:
            sum_N[columns] += kernel_BB.sum(axis=0, dtype=np.float64)
    return sum_N


def precision_recall(
    generated_NF: NDArray[np.floating],
    reference_MF: NDArray[np.floating],
    neighbours: int = NEIGHBOURS,
) -> tuple[QualityEstimate, QualityEstimate]:
    """Share of generated images inside the data's manifold, and of data inside theirs.

    A manifold is the union of balls that reach to each point's k-th neighbour (arXiv 1904.06991).
    The errors are those of a share of independent images, the manifolds taken as given. The
    products are in the features' own precision, float32 or float64.
    """
    x_NF, y_MF = _pair(generated_NF, reference_MF)
    for features, name in ((x_NF, "generated features"), (y_MF, "reference features")):
        _check(features, name, 2 * (neighbours + 1))
    # About their mean, |x|^2 + |y|^2 - 2 x.y loses fewer digits.
    mean_F = y_MF.mean(axis=0, dtype=np.float64).astype(y_MF.dtype)
    x_NF, y_MF = x_NF - mean_F, y_MF - mean_F
    reach_N, reach_M = _reach(x_NF, neighbours), _reach(y_MF, neighbours)
    hit_N, hit_M = np.zeros(len(x_NF), dtype=bool), np.zeros(len(y_MF), dtype=bool)
    for rows, columns, _ in _tiles(len(x_NF), len(y_MF)):
        apart_BB = _squared_distances(x_NF[rows], y_MF[columns])
        hit_N[rows] |= (apart_BB <= reach_M[columns]).any(axis=1)
        hit_M[columns] |= (apart_BB <= reach_N[rows, None]).any(axis=0)
    return _share(hit_N), _share(hit_M)


def _reach(x_NF: Floats, neighbours: int) -> Floats:
    """Squared distance of each point to its k-th neighbour [N]."""
    near_NK = np.full((len(x_NF), neighbours), np.inf, dtype=x_NF.dtype)

    def keep(points: slice, apart_BB: Floats) -> None:
        found_BB = np.concatenate([near_NK[points], apart_BB], axis=1)
        near_NK[points] = np.partition(found_BB, neighbours - 1, axis=1)[:, :neighbours]

    for rows, columns, square in _tiles(len(x_NF)):
        apart_BB = _squared_distances(x_NF[rows], x_NF[columns])
        if square:
            np.fill_diagonal(apart_BB, np.inf)
        else:
            keep(columns, apart_BB.T)
        keep(rows, apart_BB)
    return np.asarray(near_NK.max(axis=1))


def _share(hit_N: NDArray[np.bool_]) -> QualityEstimate:
    share = float(hit_N.mean())
    return QualityEstimate(share, float(np.sqrt(share * (1 - share) / len(hit_N))))


def _squared_distances(x_NF: Floats, y_MF: Floats) -> Floats:
    apart_NM = x_NF @ (-2 * y_MF.T)
    apart_NM += np.square(x_NF).sum(axis=1)[:, None]
    apart_NM += np.square(y_MF).sum(axis=1)
    return np.asarray(np.maximum(apart_NM, 0, out=apart_NM))


def _pair(x_NF: NDArray[np.floating], y_MF: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Both in the precision of the finer one, at least float32."""
    kind = np.result_type(x_NF, y_MF, np.float32)
    return np.asarray(x_NF, dtype=kind), np.asarray(y_MF, dtype=kind)


def _tiles(rows: int, columns: int | None = None) -> Iterator[tuple[slice, slice, bool]]:
    """Parts of a matrix of pairs: rows, columns, whether on the diagonal.

    columns: default, rows and columns are the same points, and each pair comes once.
    """
    for a in _blocks(0, rows):
        for b in _blocks(a.start if columns is None else 0, rows if columns is None else columns):
            yield a, b, columns is None and a == b


def _blocks(start: int, stop: int) -> list[slice]:
    return [slice(a, min(a + BLOCK, stop)) for a in range(start, stop, BLOCK)]


def _jackknife_se(left_out_K: Floats, count: int | None = None) -> float:
    """Standard error from estimates that each leave one image of `count` out.

    count: where not all were left out in turn; default: they were.
    """
    parts = len(left_out_K) if count is None else count
    return float(np.sqrt((parts - 1) * np.square(left_out_K - left_out_K.mean()).mean()))


def _check(features_NF: Floats, name: str, least: int = 2) -> None:
    """Raises JstarError for arrays that are no features, or too few of them."""
    if features_NF.ndim != 2 or len(features_NF) < least:
        raise JstarError(
            f"{name}: have shape {features_NF.shape}, allowed is [N, F] with N at least {least}"
        )
    if not np.isfinite(features_NF).all():
        raise JstarError(f"{name}: hold NaN or infinite values, only finite numbers are allowed")
