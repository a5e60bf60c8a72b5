"""The joint law J(N, D) = E + A (N/N0)^-a + B (D/D0)^-b of one noise scale, under three floors E.

zero: E = 0, no floor. optimal: E = J*. free: E fitted. Along the compute-optimal sizes J - E falls
as F^alpha with alpha = -a b / (a + b), and N grows as F^(b / (a + b)) (approach 3 of arXiv
2203.15556). Every snapshot of every run counts, so the law decides about a floor in designs whose
sizes never cross. How errors are correlated: `jstar.scaling.joint_many`.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

from jstar.scaling.joint_many import (
    ROUGH,
    ROUNDS,
    Components,
    JointDesign,
    Whitening,
    components,
    error_weights,
    snapshot_correlation,
)
from jstar.scaling.joint_solve import TOLERANCE, solve
from jstar.scaling.laws import Array

FLOORS = ("zero", "optimal", "free")
MIN_SIZES, MIN_IMAGES, MIN_JOINT_POINTS = 3, 3, 8
POWERS = (1.0, 0.5, 0.0)  # of the gap, to which errors of the loss grow
CLEARLY = 2.0  # log likelihood by which another power than 1 must be better
OUTLYING = 3.0  # robust standard deviations beyond which a point's error counts as larger
BATCH = 200  # studies fitted together: larger ones leave the cache
EXPONENTS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2)  # of the first guess


@dataclass(frozen=True)
class JointPoints:
    """What a joint law is fitted to: P points in units of `unit`, the geometric mean loss.

    loss_P, optimal: in that unit. params, images: geometric means N0, D0. optimal_error: standard
    error of J* against these losses; 0 where the loss is J* + direct gap, which knows its floor.
    outlying_P: factor on each point's error, 1 for all but outliers. excess_P: by how much a better
    learning rate might lower the loss, in that unit, 0 where nothing is known of it.
    """

    design: JointDesign
    loss_P: Array
    unit: float
    params: float
    images: float
    optimal: float
    optimal_error: float
    outlying_P: Array
    excess_P: Array


def joint_points(
    rows: pd.DataFrame, column: str, optimal: tuple[float, float], cluster: str
) -> JointPoints | str:
    """Points of the rows' `column`, or why there is no joint law of them.

    optimal: J* and its standard error, nan without one. cluster: what shares an error, `size` (its
    seeds are averaged first) or `run`. Without the column images, F / N stands for them: only the
    unit of D0 changes. The column mistuned, a share of the gap (of the loss without J*), is excess.
    """
    data = rows["images"] if "images" in rows else rows["flops"] / rows["params"]
    known = rows[column] - (optimal[0] if np.isfinite(optimal[0]) else 0.0)
    excess = known.clip(lower=0) * (rows["mistuned"].fillna(0.0) if "mistuned" in rows else 0.0)
    table = pd.DataFrame(
        {"params": rows["params"], "images": data, "run": rows["run"], "loss": rows[column],
         "excess": excess}
    ).dropna()  # fmt: skip
    seeds = table.groupby("run")["images"].apply(tuple)
    table = table.assign(seeds=1)
    if cluster == "size" and table.groupby("params")["run"].nunique().max() > 1:
        shared = table["run"].map(seeds)
        table = table.assign(run=table["params"].astype(str) + shared.astype(str))
        mean = {"loss": ("loss", "mean"), "excess": ("excess", "mean"), "seeds": ("loss", "size")}
        table = table.groupby(["run", "params", "images"]).agg(**mean).reset_index()
    if table["params"].nunique() < MIN_SIZES:
        return f"{table['params'].nunique()} sizes, a joint law needs {MIN_SIZES}"
    if table["images"].nunique() < MIN_IMAGES:
        return "all sizes saw the same number of images, b is not identified"
    if len(table) < MIN_JOINT_POINTS:
        return f"{len(table)} points, a joint law needs {MIN_JOINT_POINTS}"
    table = table.assign(group=table["params"] if cluster == "size" else table["run"])
    if (table.groupby("run").size() == 1).all():
        table = table.assign(group=table.index)  # points that share nothing
    table = table.sort_values(["group", "run", "images"])
    n, d, loss, more = (table[c].to_numpy(float) for c in ("params", "images", "loss", "excess"))
    unit = float(np.exp(np.log(loss).mean()))
    seeds_P = table["seeds"].to_numpy(float)
    design = JointDesign.of(n, d, _codes(table["group"]), _codes(table["run"]), seeds_P)
    return JointPoints(
        design, loss / unit, unit, _middle(n), _middle(d), optimal[0] / unit, optimal[1] / unit,
        np.ones(len(table)), more / unit,
    )  # fmt: skip


def _codes(labels: "pd.Series[Any]") -> NDArray[np.int64]:
    return np.asarray(pd.factorize(labels)[0], dtype=np.int64)


def _middle(values: Array) -> float:
    return float(np.exp(np.mean(np.log(values))))


@dataclass(frozen=True)
class FloorFits:
    """The three laws of Q studies of one design, with the same whitening.

    theta [Q, 5]: ln A, a, ln B, b, E. rss [Q]. from_zero_Q, from_optimal_Q: signed root of the
    likelihood ratio, positive where the free floor lies above 0, above J*. misfit: by how much a
    quadratic surface in (ln N, ln D) would fit better than each law.
    """

    theta: dict[str, Array]
    rss: dict[str, Array]
    white: Whitening
    parts: Components
    from_zero_Q: Array
    from_optimal_Q: Array
    misfit: dict[str, Array]


def exponents(theta_QK: Array) -> tuple[Array, Array]:
    """(alpha, size exponent), each [Q]."""
    a, b = theta_QK[:, 1], theta_QK[:, 3]
    return -a * b / (a + b), b / (a + b)


def fit_floors(
    points: JointPoints, loss_QP: Array, optimal_Q: Array, starts: dict[str, Array], power: float,
    rounds: int = ROUNDS,
) -> FloorFits:  # fmt: skip
    """Fit Q studies of one design under the three floors.

    The free law says how large errors are and how they are correlated; all three are then compared
    under the same whitening. starts: theta [5] of each floor.
    """
    parts = [
        _fit_batch(
            points, loss_QP[at : at + BATCH], optimal_Q[at : at + BATCH], starts, power, rounds
        )
        for at in range(0, len(loss_QP), BATCH)
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: list[Any]) -> Any:
    """One dataclass of many: arrays and dicts of arrays laid end to end along their first axis."""
    found: dict[str, Any] = {}
    for f in fields(parts[0]):
        values = [getattr(part, f.name) for part in parts]
        if isinstance(values[0], dict):
            found[f.name] = {k: np.concatenate([v[k] for v in values]) for k in values[0]}
        else:
            plain = isinstance(values[0], np.ndarray)
            found[f.name] = np.concatenate(values) if plain else _joined(values)
    return type(parts[0])(**found)


def _fit_batch(
    points: JointPoints, loss_QP: Array, optimal_Q: Array, starts: dict[str, Array], power: float,
    rounds: int,
) -> FloorFits:  # fmt: skip
    design, studies = points.design, len(loss_QP)
    begin = {floor: np.repeat(start[None], studies, axis=0) for floor, start in starts.items()}
    free = begin["free"]
    weight = error_weights(design, free, power) / points.outlying_P
    white = Whitening.of(design, weight, np.zeros(studies), np.ones(studies))
    for turn in range(rounds):
        # A small size exponent imitates a floor: the free law has a valley on either side.
        tried = [free] if turn else [free, begin["zero"], begin["optimal"]]
        free, _ = _lowest(design, loss_QP, tried, white, ROUGH)
        weight = error_weights(design, free, power) / points.outlying_P
        along = snapshot_correlation(design, loss_QP, free, weight)
        white = Whitening.of(design, weight, along, white.ratio_Q)
        parts, _ = components(design, loss_QP, free, white, 5)
        white = Whitening.of(design, weight, along, parts.ratio_Q(design.ratios))
    begin["zero"][:, 4], begin["optimal"][:, 4] = 0.0, optimal_Q
    tried = [begin["zero"], begin["optimal"]]
    fixed = solve(design, loss_QP, np.stack(tried), white, free=False)
    theta, rss = (dict(zip(("zero", "optimal"), found, strict=True)) for found in fixed)
    tried = [free, theta["zero"], theta["optimal"]]
    theta["free"], rss["free"] = _lowest(design, loss_QP, tried, white, TOLERANCE)
    found = {f: _misfit(design, loss_QP, theta[f], white, f == "free") for f in FLOORS}
    reach = theta["free"][:, 4]
    return FloorFits(
        theta, rss, white, parts, _root(rss, "zero", len(design), reach),
        _root(rss, "optimal", len(design), reach - optimal_Q), found,
    )  # fmt: skip


def _lowest(
    design: JointDesign, loss_QP: Array, starts: list[Array], white: Whitening, tolerance: float
) -> tuple[Array, Array]:
    """The free law of each study from the start that leads lowest: theta [Q, 5] and rss [Q]."""
    theta, rss = solve(design, loss_QP, np.stack(starts), white, free=True, tolerance=tolerance)
    best_Q, rows = np.argmin(rss, axis=0), np.arange(len(loss_QP))
    return theta[best_Q, rows], rss[best_Q, rows]


def _root(rss: dict[str, Array], floor: str, points: int, side_Q: Array) -> Array:
    ratio = np.log(np.maximum(rss[floor], 1e-300) / np.maximum(rss["free"], 1e-300))
    return np.asarray(np.sign(side_Q) * np.sqrt(np.maximum(points * ratio, 0.0)))


def _misfit(
    design: JointDesign, loss_QP: Array, theta_QK: Array, white: Whitening, free: bool
) -> Array:
    """P ln(rss / rss with a relative error that is quadratic in (ln N, ln D)), [Q]."""
    k = 5 if free else 4
    law_QP, slope_QKP = design.jacobian(theta_QK, k)
    n, d = design.ln_n_P, design.ln_d_P
    bent = design.gap(theta_QK)[:, None] * np.stack([n * n, n * d, d * d])
    both = np.concatenate([slope_QKP, bent, (loss_QP - law_QP)[:, None]], axis=1)
    gram = white.gram(design, both)
    scale = np.sqrt(np.einsum("qkk->qk", gram)) + 1e-150
    gram = gram / scale[:, :, None] / scale[:, None, :] + 1e-10 * np.eye(k + 4)
    rest = []
    for columns in (k, k + 3):
        part, right = gram[:, :columns, :columns], gram[:, :columns, -1]
        rest.append(1 - (np.linalg.solve(part, right[..., None])[..., 0] * right).sum(axis=1))
    ratio = np.maximum(rest[0], 1e-12) / np.maximum(rest[1], 1e-12)
    return np.asarray(len(design) * np.log(np.maximum(ratio, 1.0)))


class JointFit(NamedTuple):
    """One study: the points with outliers marked, its three laws, and the power of its errors."""

    points: JointPoints
    fits: FloorFits
    power: float


def fit_joint(points: JointPoints) -> JointFit:
    """Fit one study."""
    starts = {floor: _guess(points, floor) for floor in FLOORS}
    loss_QP, optimal_Q = points.loss_P[None], np.array([_known(points.optimal)])
    best: tuple[float, float, FloorFits] | None = None
    for power in POWERS:
        fits = fit_floors(points, loss_QP, optimal_Q, starts, power, rounds=3)
        likely = float(components(points.design, loss_QP, fits.theta["free"], fits.white, 5)[1][0])
        if best is None or likely > best[0] + CLEARLY:
            best = (likely, power, fits)
    assert best is not None
    _, power, fits = best
    for _ in range(4):
        outlying = _outlying(points, fits, power)
        if np.allclose(outlying, points.outlying_P, rtol=0.05):
            break
        points = replace(points, outlying_P=outlying)
        starts = {floor: fits.theta[floor][0] for floor in FLOORS}
        fits = fit_floors(points, loss_QP, optimal_Q, starts, power, rounds=3)
    return JointFit(points, fits, power)


def _known(optimal: float) -> float:
    """J*, or 0 where there is none: the law `optimal` is then not read."""
    return optimal if np.isfinite(optimal) else 0.0


def _outlying(points: JointPoints, fits: FloorFits, power: float) -> Array:
    """Factor on the error of points beyond OUTLYING robust standard deviations of their cluster."""
    design, theta = points.design, fits.theta["free"]
    rest = (points.loss_P - theta[0, 4] - design.gap(theta)[0]) * error_weights(
        design, theta, power
    )[0]
    code = design.cluster_P
    if len(design.start_R) < len(design):
        middle = pd.Series(rest).groupby(code).median().to_numpy()
        rest = rest - middle[code]
    spread = 1.4826 * float(np.median(np.abs(rest)))
    return np.asarray(np.maximum(np.abs(rest) / max(OUTLYING * spread, 1e-300), 1.0))


def _guess(points: JointPoints, floor: str) -> Array:
    """Non-negative least squares of relative errors over a grid of exponents."""
    design, loss = points.design, points.loss_P
    fixed = _known(points.optimal) if floor == "optimal" else 0.0
    response = loss - fixed
    scale = np.maximum(np.abs(response), 1e-3 * float(np.abs(response).max()))
    best: tuple[float, Array] | None = None
    for a in EXPONENTS:
        for b in EXPONENTS:
            columns = [np.exp(-a * design.ln_n_P), np.exp(-b * design.ln_d_P)]
            columns += [np.ones_like(loss)] if floor == "free" else []
            linear, rest = nnls(np.stack(columns, axis=1) / scale[:, None], response / scale)
            if best is None or rest < best[0]:
                logs = np.log(np.maximum(linear[:2], 1e-3 * max(float(linear[:2].max()), 1e-6)))
                level = float(linear[2]) if floor == "free" else fixed
                best = (float(rest), np.array([logs[0], a, logs[1], b, level]))
    assert best is not None
    return best[1]
