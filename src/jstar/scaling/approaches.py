"""Three ways to a study's exponents, and whether they agree: envelope, isoFLOP minima, joint law.

alpha is that of J - E over compute, size exponent that of the optimal number of parameters. All
three use the floor E that the verdict supports: `optimal` (J*; the envelope's corrected law) where
it is `corrected`, `zero` (raw) where it is `raw`, and `free`, a fitted floor, where it is `above`
or `undecided`; the isoFLOP minima take the joint law's floor. A number stands in the table wherever
it can be computed; only a row whose status is `converged` may be quoted.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from jstar.scaling.calibration import interval
from jstar.scaling.frontier import FrontierStatus
from jstar.scaling.isoflop import (
    CONVERGED,
    MIN_MINIMA,
    RESOLVED,
    IsoFlops,
    MinimaDraws,
    draw_minima,
    iso_flop,
    slope,
)
from jstar.scaling.joint_law import MISFIT, JointLaw
from jstar.scaling.laws import Array
from jstar.scaling.noise_scales import ScaleFits, StudyFits, frontier_value

APPROACHES = {"envelope": "the envelope", "isoflop": "isoFLOP minima", "joint": "the joint law"}
ENVELOPE_LAW = {"zero": "raw", "optimal": "corrected", "free": "free"}
FLOOR_WORDS = {"zero": "no floor", "optimal": "the floor J*", "free": "a fitted floor"}
NUMBERS = ("alpha", "alpha_low", "alpha_high", "size_exponent", "size_low", "size_high")
NOT_RESOLVED = "not resolved"  # an interval wider than alpha itself says nothing of it
NAN = float("nan")
UNKNOWN = dict.fromkeys(NUMBERS, NAN)


Minima = tuple[IsoFlops, MinimaDraws | None]


def approaches_frame(study: StudyFits, minima: list[Minima]) -> pd.DataFrame:
    """One row per (sigma or total, approach): both exponents, intervals, status and floor.

    minima: `isoflop_of` every noise scale.
    """
    rows = []
    for scale, (iso, drawn) in zip(study.scales, minima, strict=True):
        floor = floor_of(scale)
        for approach, (numbers, status) in {
            "envelope": _envelope(scale, study),
            "isoflop": _isoflop(scale, study, iso, drawn),
            "joint": _joint(scale),
        }.items():
            found = {"sigma": scale.sigma, "approach": approach, **numbers}
            rows.append({**found, "status": status, "floor": floor})
    return pd.DataFrame(rows)


def floor_of(scale: ScaleFits) -> str:
    """The floor that the verdict supports; without a joint law J* where it is known, else none."""
    if scale.joint.alpha is not None:
        return scale.joint.alpha.floor
    return "optimal" if np.isfinite(scale.points.optimal) else "zero"


def _joint(scale: ScaleFits) -> tuple[dict[str, float], str]:
    law = scale.joint.alpha
    if law is None:
        return UNKNOWN, scale.joint.status
    status = law.status if law.misfit > MISFIT else "the law does not hold"
    if status == CONVERGED and law.high["alpha"] - law.low["alpha"] > abs(law.alpha):
        status = NOT_RESOLVED
    names, ends = ("alpha", "size_exponent"), (law.low, law.high)
    values = [(getattr(law, name), *(end[name] for end in ends)) for name in names]
    return dict(zip(NUMBERS, [*values[0], *values[1]], strict=True)), status


def isoflop_of(scale: ScaleFits, study: StudyFits) -> Minima:
    """Minima of the gap where it is known, else of the loss, and their bootstrap draws."""
    iso = iso_flop(scale.rows, frontier_value(scale.rows))
    chosen = study.config
    error = run_error(scale, each_point=iso.by_budget)
    rng = np.random.default_rng([chosen.seed, len(scale.rows), 7])
    return iso, draw_minima(iso, error, _to_floor(scale)[0], chosen.bootstrap, rng)


def _to_floor(scale: ScaleFits) -> tuple[float, float]:
    """What turns the minima's value into J - E, and its standard error."""
    rows, law, points, floor = scale.rows, scale.joint.alpha, scale.points, floor_of(scale)
    of_gap = frontier_value(rows) == "gap_fit"
    if floor == "optimal":
        # A direct gap knows its floor; J - J* inherits the error of J*.
        return (0.0 if of_gap else -points.optimal), 0.0 if points.direct else points.optimal_se
    level = float((rows["loss_fit"] - rows["gap_fit"]).mean()) if of_gap else 0.0
    if floor == "zero" or law is None:
        return level, points.optimal_se if points.direct else 0.0
    return level - law.E, (law.high["E"] - law.low["E"]) / 4  # about two deviations each way


def _isoflop(
    scale: ScaleFits, study: StudyFits, iso: IsoFlops, drawn: MinimaDraws | None
) -> tuple[dict[str, float], str]:
    chosen = iso.inside_C
    if chosen.sum() < MIN_MINIMA:
        return UNKNOWN, iso.status
    shift, error = _to_floor(scale)
    log_f = np.log(iso.minima["flops"].to_numpy(dtype=float))[chosen]
    gap = iso.minima["value"].to_numpy(dtype=float)[chosen] + shift
    size = np.log(iso.minima["params"].to_numpy(dtype=float))[chosen]
    below = bool((gap <= 0).any())
    ends = [(NAN, NAN), (NAN, NAN)]
    if drawn is not None:
        rng = np.random.default_rng([study.config.seed, len(scale.rows), 8])
        moved = error * rng.standard_normal((len(drawn.value_QC), 1))
        gap_QC = np.maximum(drawn.value_QC[:, chosen] + shift + moved, 1e-12 * abs(gap).max())
        responses = (np.log(gap_QC), drawn.log_n_QC[:, chosen])
        ends = [interval(slope(log_f, y), study.config.confidence) for y in responses]
    alpha = NAN if below else float(slope(log_f, np.log(gap)[None])[0])
    numbers = [alpha, *(ends[0] if not below else (NAN, NAN))]
    numbers += [float(slope(log_f, size[None])[0]), *ends[1]]
    status = iso.status
    if below:
        status = "a minimum lies below the floor"
    elif drawn is not None and drawn.resolved < RESOLVED:
        status = "minima not resolved"
    return dict(zip(NUMBERS, numbers, strict=True)), status


def _envelope(scale: ScaleFits, study: StudyFits) -> tuple[dict[str, float], str]:
    """alpha of the law of the envelope; the optimal size at a crossing is the two sizes' mean."""
    fit, edge = scale.fits[ENVELOPE_LAW[floor_of(scale)]], scale.edge
    size = (NAN, NAN, NAN)
    if len(edge.crossings) >= MIN_MINIMA:
        log_f, log_n = np.array(edge.crossings), np.log(edge.exchanged).mean(axis=1)
        log_f_QC = log_f + _moved_crossings(scale, study)
        x = log_f_QC - log_f_QC.mean(axis=1, keepdims=True)
        draws = (x @ log_n) / np.maximum((x * x).sum(axis=1), 1e-12)
        size = (float(slope(log_f, log_n[None])[0]), *interval(draws, study.config.confidence))
    numbers = dict(zip(NUMBERS, (fit.alpha, fit.alpha_low, fit.alpha_high, *size), strict=True))
    return numbers, str(fit.status if edge.status is FrontierStatus.FOUND else edge.status)


def _moved_crossings(scale: ScaleFits, study: StudyFits) -> Array:
    """How far errors of the sizes move each crossing in ln F [Q, C]: error / difference of slopes.

    Values of both sizes are equal there; the steeper they part, the better the crossing is known.
    """
    deviation, freedom = run_error(scale, each_point=False)
    draws, crossings = study.config.bootstrap, scale.edge.crossings
    if not np.isfinite(deviation):
        return np.full((draws, len(crossings)), NAN)
    value = frontier_value(scale.rows)
    curves = scale.rows.groupby(["params", "flops"])[value].mean()
    rng = np.random.default_rng([study.config.seed, len(scale.rows), 9])
    sizes = sorted({n for pair in scale.edge.exchanged for n in pair})
    error_QR = rng.standard_normal((draws, len(sizes)))
    error_QR *= deviation * np.sqrt(freedom / rng.chisquare(freedom, (draws, 1)))
    shift = _to_floor(scale)[0]
    moved = np.empty((draws, len(crossings)))
    for at, (log_f, (small, large)) in enumerate(zip(crossings, scale.edge.exchanged, strict=True)):
        level, fall = zip(*(_local(curves.loc[n], log_f) for n in (small, large)), strict=True)
        step = error_QR[:, sizes.index(large)] - error_QR[:, sizes.index(small)]
        gap = max(float(np.mean(level)) + shift, 0.0)
        moved[:, at] = gap * step / max(fall[0] - fall[1], 1e-9)
    return moved


def _local(curve: "pd.Series[Any]", log_f: float) -> tuple[float, float]:
    """Value of a size at ln F, and its slope between the snapshots around it."""
    x, y = np.log(curve.index.to_numpy(dtype=float)), curve.to_numpy(dtype=float)
    right = int(np.clip(np.searchsorted(x, log_f), 1, len(x) - 1))
    fall = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return float(np.interp(log_f, x, y)), float(fall)


def run_error(scale: ScaleFits, *, each_point: bool) -> tuple[float, int]:
    """Relative error of J - E and its degrees of freedom, by what the joint law leaves.

    each_point: of every measurement; otherwise of a size's mean, what its measurements share.
    """
    law, rows = scale.joint.alpha, scale.rows[scale.rows["fitted"]]
    if law is None:
        return NAN, 0
    rest = _relative_residuals(law, rows)
    if not each_point:
        rest = rest.groupby(rows["params"]).mean()
    used = 5 if each_point else 2  # A and a take up what sizes differ by
    freedom = max(len(rest) - used, 1)
    return float(np.sqrt((rest**2).sum() / freedom)), freedom


def _relative_residuals(law: JointLaw, rows: pd.DataFrame) -> "pd.Series[float]":
    images = rows["images"] if "images" in rows else rows["flops"] / rows["params"]
    gap = law.A * (rows["params"] / law.N0) ** -law.a + law.B * (images / law.D0) ** -law.b
    return ((rows["loss_fit"] - law.E - gap) / gap).dropna()


def agreement(rows: pd.DataFrame) -> str:
    """One sentence on the approaches of one noise scale: who gives an exponent, do they agree, and
    who must not be used and why.

    rows: its three rows of `approaches_frame`. Two approaches agree where their intervals overlap.
    """
    good = rows[(rows["status"] == CONVERGED) & np.isfinite(rows["alpha"])]
    bad = rows.drop(good.index)
    floor = FLOOR_WORDS[str(rows["floor"].iloc[0])]
    why = _list(f"{APPROACHES[str(r.approach)]} ({r.status})" for r in bad.itertuples())
    if good.empty:
        return f"No approach gives an exponent: {why}."
    given = _list(_exponents(row) for _, row in good.iterrows())
    refused = f"; not to be used: {why}" if len(bad) else ""
    if len(good) == 1:
        return f"With {floor} only {given} gives exponents{refused}."
    apart = [w for w, ends in _PAIRS.items() if not _overlap(good, *ends)]
    unsure = not np.isfinite(good[["alpha_low", "alpha_high"]].to_numpy(dtype=float)).all()
    judged = "agree within their intervals"
    if apart:
        judged = f"do not agree in {_list(apart)}"
    elif unsure:
        judged = "cannot be compared, an interval is missing"
    return f"With {floor} {given} {judged}{refused}."


def agreements(frame: pd.DataFrame) -> dict[str, str]:
    """`agreement` of every noise scale of `approaches_frame`."""
    return {str(sigma): agreement(rows) for sigma, rows in frame.groupby("sigma", sort=False)}


_PAIRS = {"α": ("alpha_low", "alpha_high"), "the size exponent": ("size_low", "size_high")}


def _overlap(rows: pd.DataFrame, low: str, high: str) -> bool:
    """Whether all known intervals share a value, pair by pair."""
    known = rows[[low, high]].astype(float).dropna()
    return len(known) < 2 or bool(known[low].max() <= known[high].min())


def _exponents(row: "pd.Series[Any]") -> str:
    alpha = f"α = {row['alpha']:.3f}{_ends(row['alpha_low'], row['alpha_high'], 3)}"
    size = f"N ∝ F^{row['size_exponent']:.2f}{_ends(row['size_low'], row['size_high'], 2)}"
    both = f"{alpha}, {size}" if np.isfinite(row["size_exponent"]) else alpha
    return f"{APPROACHES[str(row['approach'])]} ({both})".replace("-", "−")


def _ends(low: float, high: float, digits: int) -> str:
    return f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite([low, high]).all() else ""


def _list(words: Iterable[str]) -> str:
    """a, b and c."""
    *rest, last = list(words) or [""]
    return f"{', '.join(rest)} and {last}" if rest else last
