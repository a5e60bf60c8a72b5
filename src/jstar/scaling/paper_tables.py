"""Tables for a paper, in Markdown and LaTeX, and the reporting checklist of a scaling-law fit."""

from typing import Any

import numpy as np
import pandas as pd

from jstar.constants import COOLDOWN, TOTAL
from jstar.scaling.approaches import NOT_RESOLVED, agreement
from jstar.scaling.isoflop import optimal_exponent
from jstar.scaling.laws import GAP_RESPONSE
from jstar.scaling.noise_scales import StudyFits, cluster_of
from jstar.typeset import Rows, latex, markdown

NOT_STATED = "not stated"
WITHOUT_DATA = "not in the table: F / N stands for D, which changes the unit of D0 alone"
FLOOR_SIGN = {"zero": "0", "optimal": "J*", "free": "free"}


def paper_tables(
    tables: dict[str, pd.DataFrame], study: StudyFits, origin: dict[str, Any]
) -> dict[str, str]:
    """Texts of {laws,sensitivity,checklist}.{md,tex} by file name."""
    confidence = f"{100 * study.config.confidence:g} %"
    made = {
        "laws": (_laws(tables), f"Exponents with {confidence} intervals and verdicts."),
        "sensitivity": (
            _sensitivity(tables["sensitivity"]),
            "Corrected exponent under other choices, and the shift in standard errors.",
        ),
        "checklist": (_checklist(tables, study, origin), "Reporting checklist of the fits."),
    }
    texts = {}
    for name, (rows, caption) in made.items():
        texts[f"{name}.md"] = markdown(rows, caption)
        texts[f"{name}.tex"] = latex(rows, caption, f"tab:{name}")
    return texts


def number(value: float, error: float | None = None) -> str:
    """A value with two digits of its error, or four of its own; never `nan`."""
    if not np.isfinite(value):
        return "not available"
    if error is None or not np.isfinite(error) or error <= 0 or abs(value) >= 1e6:
        return f"{value:.4g}".replace("-", "−")
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f}".replace("-", "−") if digits < 12 else f"{value:.4g}"


def interval_text(value: float, low: float, high: float) -> str:
    """value [low, high], with two digits of the error."""
    error = (high - low) / 4
    return f"{number(value, error)} [{number(low, error)}, {number(high, error)}]"


def exponent_text(row: "pd.Series[Any]") -> str:
    """alpha [low, high] of a row of fits or approaches, or the status where there is none."""
    if row["status"] not in ("converged", NOT_RESOLVED):
        return str(row["status"])
    text = interval_text(row["alpha"], row["alpha_low"], row["alpha_high"])
    return text if row["status"] == "converged" else f"{text}, {NOT_RESOLVED}"


def _laws(tables: dict[str, pd.DataFrame]) -> Rows:
    head = ["σ", "verdict", "α (joint law)", "floor", "floor, measured", "J*",
            "ΔAICc, no floor less J*", "α corrected, envelope", "α raw, envelope"]  # fmt: skip
    rows = [head]
    fits = tables["fits"].set_index(["sigma", "law"])
    claims = tables["approaches"]
    claims = claims[claims["approach"] == "joint"].set_index("sigma")
    for _, v in tables["verdicts"].iterrows():
        one = {law: fits.loc[(v["sigma"], law)] for law in ("raw", "corrected")}
        joint = claims.loc[v["sigma"]]
        rows.append(
            [
                TOTAL if v["sigma"] == TOTAL else f"{v['sigma']:.4g}",
                str(v["verdict"]),
                exponent_text(joint),
                f"E = {FLOOR_SIGN[str(joint['floor'])]}",
                f"{number(v['floor'])} [{number(v['floor_low'])}, {number(v['floor_high'])}]",
                number(v["floor_optimal"]),
                # Both laws of the same losses: R² of ln J and of ln(J - J*) cannot be compared.
                number(v["delta_aicc"]),
                exponent_text(one["corrected"]),
                exponent_text(one["raw"]),
            ]
        )
    return rows


def _sensitivity(frame: pd.DataFrame) -> Rows:
    """Choices down, noise scales across: alpha (shift in standard errors)."""
    sigmas = list(dict.fromkeys(frame["sigma"]))
    rows = [["choice", *[f"σ = {s:.4g}" if s != TOTAL else TOTAL for s in sigmas]]]
    for choice, part in frame.groupby("choice", sort=False):
        by_sigma = part.set_index("sigma")
        cells = []
        for s in sigmas:
            if s in by_sigma.index:
                one = by_sigma.loc[s]
                cells.append(f"{number(one['alpha'])} ({number(one['shift_in_se'])})")
            else:
                cells.append("")
        rows.append([str(choice), *cells])
    return rows


def _ema(length: float | None) -> str:
    if length is None:
        return "the first in the table"
    return "none: the ends of cooldowns" if length == COOLDOWN else str(length)


def _left_out(onsets: pd.DataFrame, study: StudyFits, data: str | None) -> str:
    """What was not fitted, and by which rule."""
    parts = [f"before {study.config.min_images} {data}"] if study.config.min_images else []
    if (onsets["left_out"] > 0).any():
        late = onsets["fitted_from"].iloc[0]
        parts.append(f"of the joint law before {late:.4g} {data}: ln J bends down against ln D")
    return "; ".join(parts) or "none"


def _checklist(tables: dict[str, pd.DataFrame], study: StudyFits, origin: dict[str, Any]) -> Rows:
    """What a reader needs to judge or repeat the fits (after (Mis)Fitting, arXiv 2502.18969)."""
    fits, verdicts, frontier = tables["fits"], tables["verdicts"], tables["frontier"]
    corrected = fits[fits["law"] == "corrected"]
    edge = frontier[frontier["on_frontier"]]
    first, config = study.scales[0].rows, study.config
    minima = tables["isoflop_minima"]
    inside = minima[(minima["status"] == "inside") & (minima["sigma"] == study.scales[-1].sigma)]
    last = tables["approaches"].tail(3)
    counts, ahead = (verdicts[c].value_counts() for c in ("verdict", "heldout_says"))
    in_loss = int((corrected["r2_response"] == GAP_RESPONSE).sum())
    sources = ", ".join(sorted(set(verdicts["gap_source"])))
    return [
        ["question", "answer"],
        ["form of the law", "J = βF^α (raw), J − J* = βF^α (corrected), J = J0 + βF^α (free)"],
        ["loss", origin["loss_unit"] or NOT_STATED],
        ["compute F", origin["flop_convention"] or NOT_STATED],
        ["data D", origin["data"] or WITHOUT_DATA],
        ["parameters N", f"{first['params'].nunique()} sizes, {first['params'].min():.4g} to "
                         f"{first['params'].max():.4g}"],
        ["training runs", str(first["run"].nunique())],
        ["range of F on the frontier", f"{edge['flops'].min():.4g} to {edge['flops'].max():.4g}"],
        ["points of a fit", f"{int(fits['n'].min())} to {int(fits['n'].max())}"],
        ["frontier", "at every F the size with the lowest loss, seeds averaged; points within "
                     f"{100 * config.frontier_tolerance:g} % of the best so far"],
        ["snapshots left out", _left_out(tables["onsets"], study, origin["data"])],
        ["split", "train" if "split" in first else NOT_STATED],
        ["EMA", _ema(origin["ema"]) if "ema" in first else NOT_STATED],
        ["gap", sources],
        ["J*", f"{origin['optimal'] or 'not given'}, card {origin['card_id'] or 'not given'}"],
        ["objective", "least squares of the log response, weights 1 / (scatter² + SE²); in J "
                      f"where a gap is not above 0: {in_loss} of {len(corrected)} corrected laws"],
        ["optimiser", "lmfit (Levenberg-Marquardt), checked by variable projection: largest "
                      f"difference {number(float(fits['solver_difference'].max()))}"],
        ["start values", "least-squares line; free law: the best of 80 offsets"],
        ["intervals", f"wild cluster bootstrap, {config.bootstrap} draws over clusters "
                      f"({cluster_of(first, config.cluster)}) × J* × evaluation, seed "
                      f"{config.seed}; beside it covariance and profile likelihood"],
        ["fits that converged", f"{int((corrected['status'] == 'converged').sum())} of "
                                f"{len(corrected)} corrected laws"],
        ["verdict", "joint law J(N, D) with E = 0, J* and free; signed likelihood ratios against "
                    f"{config.calibration} studies of each law in this design, false discovery "
                    "rate over noise scales"],
        ["verdicts", ", ".join(f"{k}: {v}" for k, v in counts.items())],
        ["held-out prediction", "top fifth of ln F by the joint law of the rest: "
                                + ", ".join(f"{k}: {v}" for k, v in ahead.items())],
        ["exponent of N_opt(F), isoFLOP", number(optimal_exponent(inside, "params"))],
        ["exponent of D_opt(F), isoFLOP", number(optimal_exponent(inside, "images"))],
        ["three approaches", agreement(last)],
        ["code", f"jstar {origin['jstar']}, commit {origin['commit'] or 'unknown'}"],
    ]  # fmt: skip
