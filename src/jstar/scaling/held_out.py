"""Held-out prediction: the joint law of less compute, against the largest compute measured.

A law fitted below a cut predicts the gap in the top fifth of ln F. The band is where measured /
predicted lies if the law holds: studies drawn from it and refitted, errors of fitted and held-out
points together, since a size that was half trained on shares its luck with its held-out half. A
band wider than the gap's fall over the last fifth could not tell the law from no further progress:
`uninformative`.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from jstar.scaling.calibration import interval
from jstar.scaling.compare import HELD_OUT
from jstar.scaling.joint import (
    FLOORS,
    MIN_IMAGES,
    MIN_JOINT_POINTS,
    MIN_SIZES,
    FloorFits,
    JointPoints,
    exponents,
    fit_floors,
    fit_joint,
)
from jstar.scaling.joint_many import (
    ROUGH,
    JointDesign,
    Luck,
    components,
    draw_errors,
    error_weights,
)
from jstar.scaling.joint_solve import solve
from jstar.scaling.laws import Array

HIT, MISS, UNINFORMATIVE = "hit", "miss", "uninformative"
SHARES = (0.4, 0.5, 0.6, 0.7, 1 - HELD_OUT)  # of the range of ln F that is fitted
DRAWS = 200


@dataclass(frozen=True)
class Prediction:
    """What the law under one floor E, fitted below the cut, says of the held-out points.

    ratio: geometric mean of measured / predicted gap; low, high: its band
    if the law holds. fall: of ln gap from the top fifth of the fitted range to the held-out
    points. E in the table's unit.
    """

    E: float
    alpha: float
    ratio: float
    low: float
    high: float
    fall: float

    @property
    def says(self) -> str:
        """hit, miss, or uninformative: inside a band that would also hold no fall at all."""
        if not self.low <= self.ratio <= self.high:
            return MISS
        wide = self.low <= 0 or np.log(self.high / self.low) >= self.fall
        return UNINFORMATIVE if wide else HIT


@dataclass(frozen=True)
class HeldOut:
    """One cut: the share of the range of ln F below it, its compute, the n points predicted.

    rms: error of ln J under each floor.
    """

    share: float
    flops: float
    n: int
    rms: dict[str, float]
    by_floor: dict[str, Prediction]


def rolling(
    points: JointPoints | str, rows: pd.DataFrame, floors: set[str], confidence: float, seed: int
) -> tuple[HeldOut, ...]:
    """The top fifth of ln F predicted from ever more compute; cuts that leave no law are left out.

    points: of a noise scale, or why it has none. rows: of its table, for the compute. floors: with
    which the gap is predicted.
    """
    if isinstance(points, str):
        return ()
    x = np.log(flops_of(points, rows))
    cuts = x.min() + np.array(SHARES) * np.ptp(x)
    test = x > x.max() - HELD_OUT * np.ptp(x)
    if not _enough(points, x <= cuts[-1]):
        return ()
    # Outliers, and how errors grow with the gap, as the longest training range shows them.
    train, fits, power = fit_joint(_take(points, x <= cuts[-1]))
    marked = points.outlying_P.copy()
    marked[x <= cuts[-1]] = train.outlying_P
    points = replace(points, outlying_P=marked)
    found = []
    for share, cut in zip(SHARES, cuts, strict=True):
        if _enough(points, x <= cut):
            keep = x <= cut
            rms, laws = _predict(points, x, keep, test, fits, power, floors, confidence, seed)
            reached = float(np.exp(x[keep].max()))
            found.append(HeldOut(share, reached, int(test.sum()), rms, laws))
    return tuple(found)


def _enough(points: JointPoints, keep: NDArray[np.bool_]) -> bool:
    """Whether the points below a cut carry a joint law."""
    least = ((points.design.ln_n_P, MIN_SIZES), (points.design.ln_d_P, MIN_IMAGES))
    several = all(len(np.unique(v[keep].round(9))) >= count for v, count in least)
    return several and int(keep.sum()) >= MIN_JOINT_POINTS


def flops_of(points: JointPoints, rows: pd.DataFrame) -> Array:
    """Compute of each point, found in the table by its size and data."""
    data = rows["images"] if "images" in rows else rows["flops"] / rows["params"]
    table = pd.DataFrame({"n": np.log(rows["params"]), "d": np.log(data), "f": rows["flops"]})
    table = table.dropna()
    design = points.design
    where = [design.ln_n_P + np.log(points.params), design.ln_d_P + np.log(points.images)]
    _, at = cKDTree(table[["n", "d"]].to_numpy()).query(np.stack(where, axis=1))
    return np.asarray(table["f"].to_numpy(dtype=float)[at])


def _predict(
    points: JointPoints, x: Array, keep: NDArray[np.bool_], test: NDArray[np.bool_],
    near: FloorFits, power: float, floors: set[str], confidence: float, seed: int,
) -> tuple[dict[str, float], dict[str, Prediction]]:  # fmt: skip
    """RMS errors of ln J, and predictions, from the points `keep`; near: fits to start from."""
    train = _take(points, keep)
    known = np.isfinite(points.optimal)
    fits = fit_floors(
        train, train.loss_P[None], np.array([points.optimal if known else 0.0]),
        {floor: near.theta[floor][0] for floor in FLOORS}, power, rounds=3,
    )  # fmt: skip
    rng = np.random.default_rng([seed, int(keep.sum()), 7])
    top = keep & (x > x[keep].max() - HELD_OUT * np.ptp(x[keep]))
    loss, rms, laws = points.loss_P[test], {}, {}
    for floor in sorted(FLOORS if known else {"zero", "free"}):
        theta = fits.theta[floor]
        gap_P, level = points.design.gap(theta)[0], theta[0, 4]
        law = np.maximum(level + gap_P[test], 1e-300)
        rms[floor] = float(np.sqrt(np.mean(np.log(loss / law) ** 2)))
        if floor in floors:
            drawn = _drawn_ratios(points, keep, test, train, fits, power, floor, rng)
            low, high = interval(drawn, confidence)
            laws[floor] = Prediction(
                E=float(level) * points.unit,
                alpha=float(exponents(theta)[0][0]),
                ratio=float(_ratio((loss - level)[None], gap_P[None, test])[0]),
                low=low,
                high=high,
                fall=float(np.log(gap_P[top]).mean() - np.log(gap_P[test]).mean()),
            )
    return rms, laws


def _take(points: JointPoints, keep: NDArray[np.bool_]) -> JointPoints:
    """The points below a cut; N0 and D0 stay, so that the law says the same of the others."""
    design = points.design
    cluster = design.cluster_P[keep]
    start = np.flatnonzero(np.r_[True, np.diff(cluster) != 0])
    part = JointDesign(design.ln_n_P[keep], design.ln_d_P[keep], start, design.first_P[keep],
                       design.lag_P[keep], design.seeds_P[keep])  # fmt: skip
    return replace(points, design=part, loss_P=points.loss_P[keep],
                   outlying_P=points.outlying_P[keep], excess_P=points.excess_P[keep])  # fmt: skip


def _ratio(measured_QT: Array, predicted_QT: Array) -> Array:
    """Geometric mean of measured / predicted, [Q]; arithmetic where a measured gap is <= 0."""
    share = measured_QT / predicted_QT
    geometric = np.exp(np.log(np.maximum(share, 1e-300)).mean(axis=1))
    return np.asarray(np.where((share > 0).all(axis=1), geometric, share.mean(axis=1)))


def _drawn_ratios(
    points: JointPoints, keep: NDArray[np.bool_], test: NDArray[np.bool_], train: JointPoints,
    fits: FloorFits, power: float, floor: str, rng: np.random.Generator,
) -> Array:  # fmt: skip
    """Measured / predicted, [DRAWS], in studies of this design in which the law holds."""
    design, theta = points.design, fits.theta[floor]
    k = 5 if floor == "free" else 4
    parts, _ = components(train.design, train.loss_P[None], theta, fits.white, k)
    weight_P = error_weights(design, fits.theta["free"], power)[0]  # as in `fit_floors`
    weight_P[keep] /= train.outlying_P  # of a held-out point nothing is known yet
    freedom = len(train.design) - k
    error_QP = draw_errors(design, fits.white, parts, freedom, weight_P, DRAWS, Luck(rng))
    if floor == "optimal":  # a J* that is too high lowers all gaps together
        error_QP -= points.optimal_error * rng.standard_normal((DRAWS, 1))
    loss_QP = theta[:, 4:5] + design.gap(theta) + error_QP
    same = np.zeros(DRAWS, dtype=np.int64)
    (found,), _ = solve(train.design, loss_QP[:, keep], theta[same][None], fits.white.take(same),
                        free=floor == "free", tolerance=ROUGH)  # fmt: skip
    return _ratio(loss_QP[:, test] - found[:, 4:5], design.gap(found)[:, test])
