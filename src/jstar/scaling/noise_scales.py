"""The fits of a study: at every noise scale frontier, three laws, intervals and verdict."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from jstar.config import FitConfig
from jstar.constants import TOTAL
from jstar.curve import OptimalLoss
from jstar.errors import JstarError
from jstar.noise import Process
from jstar.pool import in_processes
from jstar.scaling.calibration import Shared
from jstar.scaling.first_look import FirstLook, first_look, more_nulls_needed
from jstar.scaling.fit import fit_points
from jstar.scaling.frontier import Frontier, FrontierStatus, frontier
from jstar.scaling.held_out import MISS, HeldOut, rolling
from jstar.scaling.input_checks import check_against_optimal, check_below_data, check_total
from jstar.scaling.inputs import select, with_total
from jstar.scaling.intervals import REFUSED_DRAWS, AlphaDraws, bootstrap
from jstar.scaling.joint import JointFit, JointPoints, fit_joint, joint_points
from jstar.scaling.laws import LAWS, Array, FitStatus, LawFit, LawPoints
from jstar.scaling.onset import before, onset_frame
from jstar.scaling.profile import profile_interval
from jstar.scaling.residuals import ResidualTests, examine
from jstar.scaling.verdict import (
    FLOOR_OF,
    UNDECIDED,
    JointScale,
    adjust_verdicts,
    conclude,
    measure_law,
)
from jstar.scaling.whole_study import errors_of, expected_frame, shared_share


@dataclass(frozen=True)
class ScaleFits:
    """One noise scale (or the total): its rows, frontier, fits by law and draws.

    rows: `fitted` says which the joint law is fitted to, those from the onset on.

    joint: the joint law and the verdict, of the loss that is fitted. measured: the same of the
    plain losses, which know nothing of J*, against J* on the very draws that measured them; None
    without direct gaps. held: the largest compute predicted from ever more of the rest.
    """

    sigma: float | str
    rows: pd.DataFrame
    edge: Frontier
    points: LawPoints
    fits: dict[str, LawFit]
    draws: dict[str, AlphaDraws]
    tests: dict[str, ResidualTests]
    joint: JointScale
    measured: JointScale | None
    held: tuple[HeldOut, ...]


@dataclass(frozen=True)
class StudyFits:
    """Fits of every noise scale, increasing, the total last.

    losses: all rows of the input. onsets: from where on the joint law is
    fitted (`jstar.scaling.onset`). expected: how many noise scales whole
    studies of this design would give each verdict; shared: how much of their errors' variance noise
    scales share (both: `jstar.scaling.whole_study`).
    """

    losses: pd.DataFrame
    scales: tuple[ScaleFits, ...]
    config: FitConfig
    onsets: pd.DataFrame
    expected: pd.DataFrame
    shared: float

    def rows_of(self, ema: float) -> pd.DataFrame:
        """The rows from the onset on of another length of averages, or of cooldown ends."""
        rows = select(self.losses, ema=ema, min_images=self.config.min_images)
        return rows[~(before(rows, self.onsets) & self.config.onset)]


def fit_study(
    losses: pd.DataFrame,
    curve: OptimalLoss | None,
    config: FitConfig,
    process: Process | str | None,
) -> StudyFits:
    """Fit the three laws at every noise scale of `losses` (see `inputs.read_losses`).

    process: of the total loss, if it is to be fitted.
    """
    if curve is not None and (losses["sigma"] == TOTAL).all():
        raise JstarError(
            f"{losses['source'].iloc[0]}: has no noise scales, so that J* cannot be matched to its "
            "losses; name the same sigma in both tables"
        )
    losses = with_total(losses, process)
    check_total(losses, process)
    rows = select(losses, ema=config.ema, min_images=config.min_images)
    keys = sorted((s for s in rows["sigma"].unique() if s != TOTAL), key=float)
    keys += [TOTAL] if (rows["sigma"] == TOTAL).any() else []
    floors = {sigma: optimal_of(curve, sigma, keys, process) for sigma in keys}
    parts = [rows[rows["sigma"] == sigma] for sigma in keys]
    for sigma, part in zip(keys, parts, strict=True):
        check_against_optimal(part, *floors[sigma])
        check_below_data(part, sigma, curve)
    rows = pd.concat(
        [with_gap(part, floors[sigma][0])[0] for sigma, part in zip(keys, parts, strict=True)],
        ignore_index=True,
    )
    onsets = onset_frame(rows[rows["sigma"] != TOTAL] if keys != [TOTAL] else rows)
    rows = rows.assign(fitted=~(before(rows, onsets) & config.onset))
    family = len([s for s in keys if s != TOTAL])
    mine = [(rows[rows["sigma"] == s], floors[s], config) for s in keys]
    laws = in_processes(_law, mine, "laws", "noise scales")
    shared = Shared(config.seed, shared_share([errors_of(law) for law in laws[:family]]))
    begin = [
        (law, config.calibration, _seed(config, k), None if keys[k] == TOTAL else shared)
        for k, law in enumerate(laws)
    ]
    looks = in_processes(first_look, begin, "studies", "noise scales")
    # The total is one question of its own; the noise scales are many.
    more = more_nulls_needed(looks[:family], config.confidence)
    more += more_nulls_needed(looks[family:], config.confidence)
    jobs = [
        (s, *one, number, look, nulls)
        for number, (s, one, look, nulls) in enumerate(zip(keys, mine, looks, more, strict=True))
    ]
    scales = in_processes(fit_scale, jobs, "fit", "noise scales")
    judged = adjust_verdicts([s.joint for s in scales[:family]], config.confidence)
    judged += [s.joint for s in scales[family:]]
    scales = [
        replace(s, joint=_foretold(joint, s.held)) for s, joint in zip(scales, judged, strict=True)
    ]
    tested = [s.joint for s in scales[:family]] if family > 1 else []
    expected = expected_frame(tested, config.confidence)
    return StudyFits(losses, tuple(scales), config, onsets, expected, shared.share)


def _foretold(joint: JointScale, held: tuple[HeldOut, ...]) -> JointScale:
    """Without its verdict where that law, fitted to the rest, misses the largest compute."""
    if joint.verdict == UNDECIDED or not held:
        return joint
    law = held[-1].by_floor[FLOOR_OF[joint.verdict]]
    if law.says != MISS:
        return joint
    reason = (
        f"it would be '{joint.verdict}', but that law of the rest misses the largest compute: "
        f"measured / predicted {law.ratio:.3g} in [{law.low:.3g}, {law.high:.3g}]"
    )
    return replace(joint, verdict=UNDECIDED, reason=reason)


def optimal_of(
    curve: OptimalLoss | None, sigma: float | str, keys: list[Any], proc: Process | str | None
) -> tuple[float, float]:
    """J* and its standard error at sigma, or of the total; nan where it cannot be known."""
    if curve is None:
        return float("nan"), 0.0
    if sigma != TOTAL:
        loss, stderr = curve.at(sigma, inside=True)
        return float(loss[0]), float(stderr[0])
    grid = np.array([float(k) for k in keys if k != TOTAL])
    if proc is None or len(grid) < 2:
        return float("nan"), 0.0
    return curve.total(proc, grid)


def fit_scale(
    sigma: float | str,
    rows: pd.DataFrame,
    optimal: tuple[float, float],
    config: FitConfig,
    number: int,
    look: FirstLook | str,
    more: dict[str, int],
) -> ScaleFits:
    """Everything for one noise scale; `number` keeps its random draws apart from the others'.

    more: see `more_nulls_needed`.
    """
    rows, direct = with_gap(rows, optimal[0])
    edge = frontier(rows, value=frontier_value(rows), tolerance=config.frontier_tolerance)
    cluster = cluster_of(rows, config.cluster)
    points = points_of_rows(edge.points, optimal, direct, cluster)
    seed = _seed(config, number)
    fits, draws, tests = {}, {}, {}
    for law in LAWS:
        fit = fit_points(points, law, config.confidence)
        if fit.ok and law != "free":
            tests[law] = examine(points, fit)
        fits[law], sample = with_intervals(points, fit, config.confidence, config.bootstrap, seed)
        if edge.status is FrontierStatus.NO_CROSSING and fits[law].ok:
            fits[law] = replace(fits[law], status=FitStatus.NO_CROSSING)
        elif sample is not None:
            draws[law] = sample
    chosen = config.confidence, config.calibration, seed
    later = rows[rows["fitted"]]
    fitted = _joint_points(later, optimal, direct, cluster)
    joint = conclude(look, config.confidence, more)
    floors = {FLOOR_OF[joint.verdict], FLOOR_OF[UNDECIDED]}  # many noise scales may undecide it
    held = rolling(fitted, later, floors, config.confidence, seed)
    measured = None
    if direct and np.isfinite(optimal[0]):
        same_draws = float((later["loss"] - later["gap"]).mean()), 0.0
        measured = measure_law(joint_points(later, "loss", same_draws, cluster), "free", *chosen)
    return ScaleFits(sigma, rows, edge, points, fits, draws, tests, joint, measured, held)


def _seed(config: FitConfig, number: int) -> int:
    return config.seed + 1_000_003 * number


def _law(
    rows: pd.DataFrame, optimal: tuple[float, float], config: FitConfig
) -> JointFit | str:  # fmt: skip
    """The joint law of the rows that it is fitted to, or why there is none."""
    rows, direct = with_gap(rows, optimal[0])
    rows = rows[rows["fitted"]]
    points = _joint_points(rows, optimal, direct, cluster_of(rows, config.cluster))
    return points if isinstance(points, str) else fit_joint(points)


def _joint_points(
    rows: pd.DataFrame, optimal: tuple[float, float], direct: bool, cluster: str
) -> JointPoints | str:
    """Points of the joint law; a direct gap knows its floor."""
    error = 0.0 if direct else float(np.hypot(optimal[1], _common_error(rows)))
    return joint_points(rows, "loss_fit", (optimal[0], error), cluster)


def _common_error(rows: pd.DataFrame) -> float:
    """Error of every loss against J*: all models are measured on the same images and noise."""
    return float(rows["loss_se"].mean()) if "loss_se" in rows else 0.0


def with_intervals(
    points: LawPoints, fit: LawFit, confidence: float, draws: int, seed: int
) -> tuple[LawFit, AlphaDraws | None]:
    """The fit with its bootstrap and profile intervals, and the draws behind the former.

    The free law's headline is its profile interval: an end that is not found means that offset and
    exponent trade places, and the law is not identifiable.
    """
    # A ridge without an end stops one solver here and the other there: that is its name, too.
    lost = fit.status in (FitStatus.SOLVERS_DISAGREE, FitStatus.NOT_CONVERGED)
    if not (fit.ok or (lost and fit.law == "free")):
        return fit, None
    profile = profile_interval(points, fit, confidence)
    if fit.law == "free":
        if not np.isfinite(profile).all():
            return replace(fit, status=FitStatus.NOT_IDENTIFIABLE), None
        return replace(fit, profile=profile, alpha_low=profile[0], alpha_high=profile[1]), None
    sample = bootstrap(points, fit, draws, seed)
    low, high = sample.interval(confidence)
    refused = sample.refused > REFUSED_DRAWS
    status = FitStatus.GAP_NOT_RESOLVED if refused else fit.status
    return replace(fit, profile=profile, alpha_low=low, alpha_high=high, status=status), sample


def cluster_of(rows: pd.DataFrame, cluster: str) -> str:
    """What shares an error: as configured, but runs where every run is one point."""
    return "run" if rows["run"].is_unique else cluster


def frontier_value(rows: pd.DataFrame) -> str:
    """The gap where it is known: the order is the loss's, without the noise of x0.

    The loss where a gap is not above 0: nothing lies within so many per cent of such a best one.
    """
    return "gap_fit" if (rows["gap_fit"] > 0).all() else "loss_fit"


def with_gap(rows: pd.DataFrame, optimal: float) -> tuple[pd.DataFrame, bool]:
    """Rows with loss_fit and gap_fit, and whether the gap was measured directly.

    A direct gap mean|D - D*|^2 is free of the noise of x0, so the loss that is fitted is J* + gap:
    the same quantity, and at large sigma up to a hundred times more precise than the measured
    mean, whose error all models share. Without it the gap is loss - J* and inherits J*'s error.
    """
    direct = "gap" in rows and bool(rows["gap"].notna().all())
    if direct:
        gap = rows["gap"].to_numpy(dtype=float)
        loss = optimal + gap if np.isfinite(optimal) else rows["loss"].to_numpy(dtype=float)
    else:
        loss = rows["loss"].to_numpy(dtype=float)
        gap = loss - optimal
    return rows.assign(loss_fit=loss, gap_fit=gap).reset_index(drop=True), direct


def points_of_rows(
    rows: pd.DataFrame, optimal: tuple[float, float], direct: bool, cluster: str
) -> LawPoints:
    """Points of the fit from frontier rows; a cluster is a `size` (all its seeds) or a `run`."""
    labels = {"size": "params", "run": "run"}[cluster]

    def column(name: str) -> Array:
        if name not in rows:
            return np.zeros(len(rows))
        return rows[name].fillna(0.0).to_numpy(dtype=float)

    gap_se = column("gap_se") if direct else column("loss_se")
    return LawPoints(
        flops=rows["flops"].to_numpy(dtype=float),
        loss=rows["loss_fit"].to_numpy(dtype=float),
        gap=rows["gap_fit"].to_numpy(dtype=float),
        loss_se=gap_se if direct and np.isfinite(optimal[0]) else column("loss_se"),
        gap_se=gap_se,
        cluster=np.unique(rows[labels].astype(str), return_inverse=True)[1].astype(np.int64),
        optimal=optimal[0],
        optimal_se=optimal[1],
        direct=direct,
    )
