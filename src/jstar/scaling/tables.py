"""The fits of a study as tidy tables, one function each: all that figures and notebooks read."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from jstar.constants import COOLDOWN, TOTAL
from jstar.scaling.approaches import Minima
from jstar.scaling.compare import UNKNOWN
from jstar.scaling.held_out import Prediction
from jstar.scaling.inputs import average_lengths, select
from jstar.scaling.joint_law import JointLaw
from jstar.scaling.laws import LAWS
from jstar.scaling.noise_scales import ScaleFits, StudyFits, frontier_value
from jstar.scaling.profile import profile_curve
from jstar.scaling.residuals import ResidualTests
from jstar.scaling.verdict import ABOVE, CORRECTED, FLOOR_OF, RAW, floor_says

INTERVALS = ("E", "a", "b", "alpha", "size_exponent")  # of a joint law
ENDS = ("low", "high")

EXPONENT = ("alpha", "alpha_se", "alpha_low", "alpha_high")
REST = ("beta", "offset", "offset_se", "r2", "r2_response", "aicc", "scatter", "n", "clusters")


def losses_frame(study: StudyFits) -> pd.DataFrame:
    """All rows of the input, and `loss_fit` (J* + direct gap) where a row was fitted."""
    frame = study.losses.drop(columns=["source", "line"])
    key = ["run", "flops", "sigma", *[c for c in ("ema", "split") if c in frame]]
    used = pd.concat([s.rows for s in study.scales], ignore_index=True)
    known = frame.drop(columns="loss_fit", errors="ignore")  # of an earlier fit's own table
    return known.merge(used[[*key, "loss_fit"]], on=key, how="left")


def averages_frame(losses: pd.DataFrame, ema: float | None) -> pd.DataFrame:
    """The last snapshots by EMA length: one row per (sigma or total, size, length).

    value: the direct gap where it was measured, else the loss (`of` says which), mean over seeds.
    gain_percent: how far below the value of the length that is fitted, `ema` (the first, where that
    is None or the ends of cooldowns are fitted).
    best: the size's lowest. Empty where only one length was measured.
    """
    columns = ["sigma", "model", "params", "ema", "of", "value", "gain_percent", "best"]
    lengths, ema = average_lengths(losses), None if ema == COOLDOWN else ema
    if len(lengths) < 2:
        return pd.DataFrame(columns=columns)
    rows = pd.concat([select(losses, ema=length) for length in lengths])
    rows = rows[rows["flops"] == rows.groupby("run")["flops"].transform("max")]
    word = "gap" if "gap" in rows and rows["gap"].notna().all() else "loss"
    size = ["sigma", "model", "params"]
    frame = rows.groupby([*size, "ema"], sort=False)[word].mean().rename("value").reset_index()
    used = frame[np.isclose(frame["ema"], select(losses, ema=ema)["ema"].max())]
    fitted = frame[size].merge(used[[*size, "value"]], on=size, how="left")["value"]
    frame["of"], frame["gain_percent"] = word, 100 * (1 - frame["value"] / fitted)
    frame["best"] = frame["value"] == frame.groupby(size)["value"].transform("min")
    total = frame["sigma"] == TOTAL
    number = frame["sigma"].where(~total, np.inf).astype(float)
    return frame.assign(number=number).sort_values(["number", "params", "ema"])[columns]


def fits_frame(study: StudyFits) -> pd.DataFrame:
    """One row per (sigma or total, law)."""
    rows = []
    for scale in study.scales:
        for law in LAWS:
            fit = scale.fits[law]
            rows.append(
                {
                    "sigma": scale.sigma,
                    "law": law,
                    **{name: getattr(fit, name) for name in EXPONENT},
                    "alpha_covariance_low": fit.covariance[0],
                    "alpha_covariance_high": fit.covariance[1],
                    "alpha_profile_low": fit.profile[0],
                    "alpha_profile_high": fit.profile[1],
                    **{name: getattr(fit, name) for name in REST},
                    "sizes": len(scale.edge.sizes),
                    "flops_min": scale.points.flops.min(),
                    "flops_max": scale.points.flops.max(),
                    "solver_difference": fit.solver_difference,
                    "status": str(fit.status),
                }
            )
    return pd.DataFrame(rows)


def verdicts_frame(study: StudyFits) -> pd.DataFrame:
    """One row per sigma or total: the verdict, how sure this design makes it, and the floor.

    rate_X_if_Y: how often studies of this design, drawn from the law with the floor of Y, get the
    verdict X (corrected if raw: any floor). p_zero, p_optimal_high, p_optimal_low: share of the
    studies without a floor, or with the floor J*, whose free floor lies as far above, or below.
    floor: fitted to the measured losses alone, where there are direct gaps; its J* is that of the
    same draws, floor_optimal. heldout_raw, heldout_corrected: RMS error of ln J in the top fifth of
    ln F, predicted by the joint law of the rest with E = 0 and E = J*; heldout_ratio and the rest:
    measured / predicted gap with the verdict's floor (`jstar.scaling.held_out`).
    """
    rows = []
    for scale in study.scales:
        j, rates = scale.joint, scale.joint.rates
        floor = scale.measured or j
        free = floor.laws.get("free")
        ends = (free.E, free.low["E"], free.high["E"]) if free else (float("nan"),) * 3
        zero, optimal = j.laws.get("zero"), j.laws.get("optimal")
        rows.append(
            {
                "sigma": scale.sigma,
                "verdict": j.verdict,
                "reason": j.reason,
                "crossings": len(scale.edge.crossings),
                "rate_corrected_if_raw": rates("zero", CORRECTED, ABOVE),
                "rate_raw_if_corrected": rates("optimal", RAW),
                "rate_above_if_corrected": rates("optimal", ABOVE),
                "rate_raw_if_raw": rates("zero", RAW),
                "rate_corrected_if_corrected": rates("optimal", CORRECTED),
                "alpha_coverage": rates.coverage,
                "floor": ends[0],
                "floor_low": ends[1],
                "floor_high": ends[2],
                "floor_optimal": floor.optimal,
                "floor_says": floor_says(*ends, floor.optimal),
                "resolution": j.resolution,
                "p_zero": j.p.get("zero_high", float("nan")),
                "p_optimal_high": j.p.get("optimal_high", float("nan")),
                "p_optimal_low": j.p.get("optimal_low", float("nan")),
                "delta_aicc": zero.aicc - optimal.aicc if zero and optimal else float("nan"),
                "frontier": str(scale.edge.status),
                "optimal": scale.points.optimal,
                "optimal_se": scale.points.optimal_se,
                "gap_source": gap_source(scale),
                "agreement_z": subtracted_z(scale),
                **_held_out(scale),
            }
        )
    return pd.DataFrame(rows)


def _held_out(scale: ScaleFits) -> dict[str, Any]:
    """The columns heldout_... of one noise scale."""
    laws = scale.held[-1].by_floor if scale.held else {}
    rms = scale.held[-1].rms if scale.held else {}
    columns: dict[str, Any] = {
        "heldout_raw": rms.get("zero", float("nan")),
        "heldout_corrected": rms.get("optimal", float("nan")),
    }
    law = laws.get(FLOOR_OF[scale.joint.verdict])
    for name in ("ratio", "low", "high"):
        columns[f"heldout_{name}"] = getattr(law, name, float("nan"))
    return columns | {"heldout_says": law.says if law else UNKNOWN}


def held_out_frame(study: StudyFits) -> pd.DataFrame:
    """Rolling refits: one row per (sigma or total, share of the range of ln F that is fitted).

    flops: the largest compute fitted. n: points of the top fifth of ln F, which are predicted with
    the verdict's floor. ratio, low, high: measured / predicted gap, and its band if the law holds.
    """
    rows = []
    for scale in study.scales:
        floor = FLOOR_OF[scale.joint.verdict]
        for cut in scale.held:
            law = cut.by_floor[floor]
            place = {"sigma": scale.sigma, "share": cut.share, "flops": cut.flops, "n": cut.n}
            rows.append({**place, "floor": floor, **asdict(law), "says": law.says})
    columns = ["sigma", "share", "flops", "n", "floor", *Prediction.__dataclass_fields__, "says"]
    return pd.DataFrame(rows, columns=columns)


def gap_source(scale: ScaleFits) -> str:
    """How the gap was found, if it was."""
    if scale.points.direct:
        return "direct"
    return "loss - J*" if np.isfinite(scale.points.optimal) else "none"


def subtracted_z(scale: ScaleFits) -> float:
    """(loss - gap) - J* in standard errors: do the direct and the subtracted gap agree?

    One number a noise scale, because all models are measured on the same draws.
    """
    rows = scale.rows
    if not scale.points.direct or "loss_se" not in rows or not np.isfinite(scale.points.optimal):
        return float("nan")
    error = np.hypot(float(rows["loss_se"].mean()), scale.points.optimal_se)
    difference = float((rows["loss"] - rows["gap"]).mean()) - scale.points.optimal
    return difference / float(error) if error > 0 else float("nan")


def frontier_frame(study: StudyFits) -> pd.DataFrame:
    """Every row, with on_frontier; `loss` and `gap` are the numbers that were fitted.

    fitted: whether the joint law is fitted to it, too.
    """
    frames = []
    for scale in study.scales:
        rows = scale.rows
        frame = pd.DataFrame(
            {c: rows[c] for c in ("sigma", "run", "model", "params", "flops", "fitted")}
        )
        frame["loss"], frame["gap"] = rows["loss_fit"], rows["gap_fit"]
        frame["loss_measured"], frame["on_frontier"] = rows["loss"], scale.edge.on
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def onsets_frame(study: StudyFits) -> pd.DataFrame:
    """Where each size's curves last bend down, and how many of its snapshots are left out."""
    every = pd.concat([scale.rows for scale in study.scales])
    early = every[~every["fitted"]].drop_duplicates(["run", "flops"])
    left = [int((early["params"] == n).sum()) for n in study.onsets["params"]]
    return study.onsets.assign(left_out=left)


def predictions_frame(study: StudyFits) -> pd.DataFrame:
    """Smooth laws over the fitted compute, with the bands of the headline interval."""
    frames = [_prediction(s, law, study.config.confidence) for s in study.scales for law in LAWS]
    columns = ["sigma", "law", "flops", "loss", "loss_low", "loss_high", "gap", "gap_low",
               "gap_high"]  # fmt: skip
    found = [f for f in frames if f is not None]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)


def _prediction(scale: ScaleFits, law: str, confidence: float) -> pd.DataFrame | None:
    fit, draws = scale.fits[law], scale.draws.get(law)
    if not fit.ok or draws is None:
        return None
    flops = np.exp(draws.x_grid + fit.center)
    power = np.exp(draws.log_grid)
    optimal = draws.optimal[:, None]
    loss_QG = optimal + power if law == "corrected" else power
    gap_QG = power if law == "corrected" else power - optimal
    level = [0.5 - confidence / 2, 0.5 + confidence / 2]
    loss, gap = np.quantile(loss_QG, level, axis=0), np.quantile(gap_QG, level, axis=0)
    return pd.DataFrame(
        {
            "sigma": scale.sigma, "law": law, "flops": flops,
            "loss": fit.loss(flops), "loss_low": loss[0], "loss_high": loss[1],
            "gap": fit.loss(flops) - scale.points.optimal, "gap_low": gap[0], "gap_high": gap[1],
        }
    )  # fmt: skip


def residuals_frame(study: StudyFits) -> pd.DataFrame:
    """ln(measured) - ln(law) of every frontier point, each law in its own response."""
    frames = []
    for scale in study.scales:
        points = scale.edge.points
        for law in LAWS:
            fit = scale.fits[law]
            if len(fit.residual):
                frame = points[["sigma", "run", "model", "params", "flops"]].copy()
                frame.insert(1, "law", law)
                frames.append(frame.assign(residual=fit.residual))
    columns = ["sigma", "law", "run", "model", "params", "flops", "residual"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def profile_frame(study: StudyFits) -> pd.DataFrame:
    """Profile likelihood of every exponent that was found: `rise` is 1 at the interval's ends.

    It is drawn for a free law that is not identifiable, too: its flat ridge is the reason.
    """
    frames = []
    for scale in study.scales:
        for law in LAWS:
            fit = scale.fits[law]
            if np.isfinite(fit.alpha) and len(fit.weight):
                alpha, rise = profile_curve(scale.points, fit, study.config.confidence)
                frame = pd.DataFrame({"alpha": alpha, "rise": rise})
                frames.append(frame.assign(sigma=scale.sigma, law=law))
    columns = ["sigma", "law", "alpha", "rise"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def tests_frame(study: StudyFits) -> pd.DataFrame:
    """Residual tests: one row per (sigma or total, raw or corrected law)."""
    rows = [
        {"sigma": scale.sigma, "law": law, **asdict(tests)}
        for scale in study.scales
        for law, tests in scale.tests.items()
    ]
    return pd.DataFrame(rows, columns=["sigma", "law", *ResidualTests.__dataclass_fields__])


def isoflop_frames(study: StudyFits, found: list[Minima]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """isoFLOP curves and their minima, of the gap where it is known, else of the loss.

    found: `approaches.isoflop_of` every noise scale. Where a minimum lies inside, params_low and
    params_high are the interval of N_opt.
    """
    curves: list[pd.DataFrame] = []
    minima: list[pd.DataFrame] = []
    for scale, (iso, drawn) in zip(study.scales, found, strict=True):
        word = "gap" if frontier_value(scale.rows) == "gap_fit" else "loss"
        ends = np.full((2, len(iso.minima)), np.nan)
        if drawn is not None:
            levels = [0.5 - study.config.confidence / 2, 0.5 + study.config.confidence / 2]
            quantiles = np.exp(np.quantile(drawn.log_n_QC, levels, axis=0))
            ends = np.where(iso.inside_C, quantiles, np.nan)
        optima = iso.minima.assign(params_low=ends[0], params_high=ends[1])
        for frames, frame in ((curves, iso.curves), (minima, optima)):
            frame.insert(0, "sigma", scale.sigma)
            frames.append(frame.assign(of=word))
    return pd.concat(curves, ignore_index=True), pd.concat(minima, ignore_index=True)


def parametric_frame(study: StudyFits) -> pd.DataFrame:
    """The joint law of every noise scale with its floor zero, J* and free.

    `of` says of what: the losses that are fitted (J* + direct gap), or the measured losses alone.
    """
    rows: list[dict[str, object]] = []
    for scale in study.scales:
        for of, judged in (("fitted", scale.joint), ("measured", scale.measured)):
            for law in judged.laws.values() if judged else ():
                row = {"sigma": scale.sigma, "of": of, **asdict(law)}
                low, high = row.pop("low"), row.pop("high")
                for name in low:
                    row |= {f"{name}_low": low[name], f"{name}_high": high[name]}
                rows.append(row)
    columns = ["sigma", "of", *(c for c in JointLaw.__dataclass_fields__ if c not in ENDS)]
    columns += [f"{n}_{end}" for n in INTERVALS for end in ENDS]
    return pd.DataFrame(rows, columns=columns)
