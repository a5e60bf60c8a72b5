"""IsoFLOP curves: loss over size at equal compute, and its minimum (approach 2 of 2203.15556).

Two designs are known. By budget: most runs are one final point, sizes were chosen for each budget,
and budgets are told apart by gaps in ln F; a parabola in ln N goes through all sizes of a budget.
Along runs: every size is interpolated at common values of compute, and the parabola goes through
the best size and its neighbours, because the ladder is wide. Parabolas are of the value itself,
not of its logarithm: subtracting a floor moves no minimum, and where the sizes lie alike about the
optimum at every budget, as most designs have it, their bias is the same at every compute.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.scaling.laws import Array

LEVELS = 9  # values of compute at which sizes are compared along runs
TOLERANCE = 0.15  # F of one budget: no gap is larger, and their range is at most twice that
BY_BUDGET = 0.5  # share of points in budgets of three sizes that makes a table one of budgets
MIN_SIZES, MIN_MINIMA = 3, 3
RESOLVED = 0.9  # share of bootstrap minima that have to lie inside, too
CONVERGED = "converged"
INSIDE, EDGE, TOO_FEW, FLAT = "inside", "at the edge", "too few sizes", "no parabola"


@dataclass(frozen=True)
class Level:
    """One compute: M sizes, increasing, with their value and ln images; window: sizes a parabola
    goes through, M or 3 about the best."""

    log_f: float
    log_n_M: Array
    value_M: Array
    log_d_M: Array
    window: int


@dataclass(frozen=True)
class IsoFlops:
    """Levels of one noise scale, increasing in F, C of them.

    minima: flops, params (N_opt), images (D_opt), value, status: `inside`, `at the edge` (the best
    size is the largest or the smallest of this compute, or the parabola's minimum lies beyond),
    `no parabola` (it opens downwards) or `too few sizes`. status: `converged`, or why the minima
    give no exponent.
    """

    levels: tuple[Level, ...]
    minima: pd.DataFrame
    by_budget: bool
    status: str

    @property
    def curves(self) -> pd.DataFrame:
        """flops, params, value, by_budget of every level, one row a size."""
        parts = [
            pd.DataFrame(
                {"flops": np.exp(v.log_f), "params": np.exp(v.log_n_M), "value": v.value_M}
            )
            for v in self.levels
        ]
        empty = pd.DataFrame(columns=["flops", "params", "value"], dtype=float)
        frame = pd.concat(parts, ignore_index=True) if parts else empty
        return frame.assign(by_budget=self.by_budget)

    @property
    def inside_C(self) -> NDArray[np.bool_]:
        """Which minima count for an exponent."""
        return (self.minima["status"] == INSIDE).to_numpy(dtype=bool)


def iso_flop(rows: pd.DataFrame, value: str, tolerance: float = TOLERANCE) -> IsoFlops:
    """Curves and minima at fixed compute of one noise scale's rows (run, params, flops, `value`).

    Seeds are averaged. tolerance: relative, of the compute of one budget. Never fails: `status`
    says why nothing came out.
    """
    images = "images" in rows and bool(rows["images"].notna().all())
    frame = rows.assign(value=rows[value], d=rows["images"] if images else np.nan)
    frame = frame[np.isfinite(frame["value"].astype(float))]
    levels, by_budget = _budgets(frame, tolerance), True
    if not levels:
        levels, by_budget = _along_runs(frame), False
    found = []
    for level in levels:
        at, low, inside = minimum(level, level.value_M[None])
        images_at = np.exp(np.interp(at[0], level.log_n_M, level.log_d_M))
        found.append(
            (np.exp(level.log_f), np.exp(at[0]), images_at, low[0], _status(level, inside[0]))
        )
    columns = ["flops", "params", "images", "value", "status"]
    minima = pd.DataFrame(found, columns=columns)
    return IsoFlops(tuple(levels), minima, by_budget, _verdict(frame, levels, minima))


def _verdict(frame: pd.DataFrame, levels: list[Level], minima: pd.DataFrame) -> str:
    """`converged`, or why the minima give no exponent."""
    inside = int((minima["status"] == INSIDE).sum())
    if frame["params"].nunique() < MIN_SIZES:
        return TOO_FEW
    if not any(len(level.log_n_M) >= MIN_SIZES for level in levels):
        return "no compute that three sizes share"
    if not inside:
        return "no minimum inside"
    return CONVERGED if inside >= MIN_MINIMA else "too few minima inside"


def _budgets(frame: pd.DataFrame, tolerance: float) -> list[Level]:
    """Levels of a table whose sizes were chosen by budget; none if it is not one."""
    if frame.empty or frame.groupby("run").size().median() > 1:
        return []
    frame = frame.sort_values("flops")
    log_f = np.log(frame["flops"].to_numpy(dtype=float))
    code = np.cumsum(np.r_[0, np.diff(log_f) > np.log1p(tolerance)])
    levels, held = [], 0
    for _, part in frame.assign(log_f=log_f).groupby(code):
        if np.ptp(part["log_f"]) > 2 * np.log1p(tolerance):
            continue
        sizes = part.groupby("params")[["log_f", "value", "d"]].mean()
        held += len(part) if len(sizes) >= MIN_SIZES else 0
        n, f, v, d = (np.asarray(c, dtype=float) for c in (sizes.index, *sizes.to_numpy().T))
        levels.append((np.log(n), f, v, np.log(d)))
    if held < BY_BUDGET * len(frame):
        return []
    return _at_one_compute(levels)


def _at_one_compute(parts: list[tuple[Array, Array, Array, Array]]) -> list[Level]:
    """Values moved along F to their budget's mean.

    At the optimum, loss falls as fast along F at this size as along the optimal sizes (envelope
    theorem), so the fall from budget to budget says how far to move.
    """
    middle = np.array([f.mean() for _, f, _, _ in parts])
    levels = [
        Level(float(m), n, v, d, len(n)) for m, (n, _, v, d) in zip(middle, parts, strict=True)
    ]
    if len(levels) < 2:
        return levels
    for _ in range(2):  # the second fall is of minima that have been moved
        low = [float(minimum(level, level.value_M[None])[1][0]) for level in levels]
        fall = np.gradient(np.array(low), middle)
        levels = [
            replace(level, value_M=v - s * (f - level.log_f))
            for level, s, (_, f, v, _) in zip(levels, fall, parts, strict=True)
        ]
    return levels


def _along_runs(frame: pd.DataFrame) -> list[Level]:
    """Levels where at least two sizes overlap, interpolated along each size in ln F."""
    columns = ["flops", "value", "d"]
    mean = frame.groupby(["params", "flops"], sort=True)[["value", "d"]].mean().reset_index()
    positive = bool((mean["value"] > 0).all())
    curves = {}
    for params, part in mean.groupby("params"):
        f, v, d = (part[c].to_numpy(dtype=float) for c in columns)
        if len(f) > 1:
            curves[float(str(params))] = np.log(f), np.log(v) if positive else v, np.log(d)
    if len(curves) < 2:
        return []
    lowest = sorted(float(f[0]) for f, _, _ in curves.values())
    highest = sorted(float(f[-1]) for f, _, _ in curves.values())
    if lowest[1] >= highest[-2]:
        return []
    levels = []
    for log_f in np.linspace(lowest[1], highest[-2], LEVELS):
        reached = [(n, c) for n, c in curves.items() if c[0][0] <= log_f <= c[0][-1]]
        if len(reached) > 1:  # ranges of compute may leave gaps between them
            value = np.array([np.interp(log_f, f, v) for _, (f, v, _) in reached])
            log_d = np.array([np.interp(log_f, f, d) for _, (f, _, d) in reached])
            log_n = np.log([n for n, _ in reached])
            value = np.exp(value) if positive else value
            levels.append(Level(float(log_f), log_n, value, log_d, 3))
    return levels


def parabola(log_n_M: Array, value_QM: Array) -> Array:
    """Least-squares (c0, c1, c2) [Q, 3] of c0 + c1 u + c2 u^2, u = ln N less its mean."""
    return np.asarray(value_QM @ np.linalg.pinv(_powers(log_n_M)).T)


def _powers(log_n_M: Array) -> Array:
    return np.asarray(np.vander(log_n_M - log_n_M.mean(), 3, increasing=True))


def minimum(level: Level, value_QM: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """ln N_opt, value there and whether it lies inside, each [Q], of Q draws of one level.

    Inside: the parabola opens upwards, its minimum lies between the smallest and the largest size,
    and neither of these has the lowest value. Elsewhere the lowest value stands.
    """
    draws, sizes = value_QM.shape
    best = np.argmin(value_QM, axis=1)
    at, low = level.log_n_M[best], value_QM[np.arange(draws), best]
    inside = np.zeros(draws, dtype=bool)
    if sizes < MIN_SIZES:
        return at, low, inside
    width = min(level.window, sizes)
    first = np.clip(best - width // 2, 0, sizes - width)
    for start in np.unique(first):
        mine, near = first == start, slice(start, start + width)
        c0, c1, c2 = parabola(level.log_n_M[near], value_QM[mine, near]).T
        vertex = -c1 / np.where(c2 > 0, 2 * c2, np.nan) + level.log_n_M[near].mean()
        good = (vertex > level.log_n_M[0]) & (vertex < level.log_n_M[-1])
        good &= (best[mine] > 0) & (best[mine] < sizes - 1)
        at[mine] = np.where(good, vertex, at[mine])
        low[mine] = np.where(good, c0 - c1**2 / (4 * np.where(c2 > 0, c2, 1)), low[mine])
        inside[mine] = good
    return at, low, inside


def _status(level: Level, inside: bool) -> str:
    if len(level.log_n_M) < MIN_SIZES:
        return TOO_FEW
    if inside:
        return INSIDE
    best = int(np.argmin(level.value_M))
    flat = 0 < best < len(level.log_n_M) - 1 and parabola(level.log_n_M, level.value_M[None])[0, 2]
    return FLAT if flat < 0 else EDGE


@dataclass(frozen=True)
class MinimaDraws:
    """Bootstrap draws of the minima: ln N_opt and value [Q, C]; resolved: share that is inside, of
    those levels whose own minimum is."""

    log_n_QC: Array
    value_QC: Array
    resolved: float


def draw_minima(
    iso: IsoFlops, error: tuple[float, int], shift: float, draws: int, rng: np.random.Generator
) -> MinimaDraws | None:
    """Minima under other errors of the runs; None where nothing says how large these are.

    Every value + shift, its distance to the floor, is off by a relative error; along runs a size
    has one error at every compute. error: its standard deviation and degrees of freedom; by budget
    what the parabolas leave says both, where there are sizes to spare.
    """
    spare = sum(max(len(v.log_n_M) - MIN_SIZES, 0) for v in iso.levels)
    if iso.by_budget and spare >= MIN_SIZES:
        rest = [_residuals(v) / (v.value_M + shift) for v in iso.levels]
        error = float(np.sqrt((np.concatenate(rest) ** 2).sum() / spare)), spare
    deviation, freedom = error
    if not iso.levels or not (np.isfinite(deviation) and freedom > 0):
        return None
    scale_Q = deviation * np.sqrt(freedom / rng.chisquare(freedom, draws))
    sizes = np.unique(np.concatenate([v.log_n_M for v in iso.levels]))
    common_QR = rng.standard_normal((draws, len(sizes)))
    found = []
    for level in iso.levels:
        if iso.by_budget:
            step_QM = rng.standard_normal((draws, len(level.log_n_M)))
        else:
            step_QM = common_QR[:, np.searchsorted(sizes, level.log_n_M)]
        moved = level.value_M + scale_Q[:, None] * step_QM * (level.value_M + shift)
        found.append(minimum(level, moved))
    at, low, inside = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    chosen = iso.inside_C
    return MinimaDraws(at, low, float(inside[:, chosen].mean()) if chosen.any() else 0.0)


def _residuals(level: Level) -> Array:
    """What a parabola through all sizes leaves, 0 for three or fewer."""
    fit = parabola(level.log_n_M, level.value_M[None])[0] @ _powers(level.log_n_M).T
    return np.asarray(level.value_M - fit)


def slope(log_f_C: Array, response_QC: Array) -> Array:
    """Least-squares slopes [Q] over ln F."""
    x = log_f_C - log_f_C.mean()
    return np.asarray(response_QC @ x / (x @ x))


def optimal_exponent(minima: pd.DataFrame, column: str) -> float:
    """Exponent of N_opt(F) or D_opt(F) through the minima that lie inside, nan for fewer than 3."""
    inside = minima[(minima["status"] == INSIDE) & minima[column].notna()]
    if len(inside) < MIN_MINIMA:
        return float("nan")
    log_f, response = (np.log(inside[c].to_numpy(dtype=float)) for c in ("flops", column))
    return float(slope(log_f, response[None])[0])
