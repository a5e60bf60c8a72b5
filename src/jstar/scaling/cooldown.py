"""What a cooldown changes: the ends of branches beside the run's averages at the same images."""

from typing import Any

import numpy as np
import pandas as pd

from jstar.config import FitConfig
from jstar.constants import COOLDOWN, TOTAL
from jstar.pool import in_processes
from jstar.scaling.inputs import average_lengths, select
from jstar.scaling.joint import joint_points
from jstar.scaling.joint_law import JointLaw
from jstar.scaling.noise_scales import ScaleFits, StudyFits, cluster_of, with_gap
from jstar.scaling.verdict import measure_law

CHANGES = ("sigma", "model", "params", "images", "flops", "seeds", "ema", "best_ema", "of",
           "gap_cooldown", "gap_average", "gap_best", "loss_cooldown", "loss_average", "loss_best",
           "change_percent", "change_se", "change_best_percent", "change_best_se")  # fmt: skip
LAWS = ("sigma", "of", "alpha", "alpha_low", "alpha_high", "a", "b", "n", "status")
OF = ("cooldown", "average")
POINT = ["run", "flops", "sigma"]


def has_cooldowns(losses: pd.DataFrame) -> bool:
    """Whether a table holds ends of cooldowns, and averages to compare them with."""
    return bool(average_lengths(losses)) and bool((losses["ema"] == COOLDOWN).any())


def cooldown_frame(study: StudyFits) -> pd.DataFrame:
    """The ends of branches: one row per (sigma or total, size, snapshot); empty without any.

    cooldown: the branch's end. average: the run's, of the length that is fitted (`ema`; the first,
    where ends of cooldowns are fitted). best: that of the length whose mean gap over seeds is the
    lowest there (`best_ema`). Gaps and losses are means over seeds. change_percent: the end against
    the average, in the direct gap where it was measured, else in the loss (`of`): the geometric
    mean over seeds, whose standard error change_se is unknown of one seed.
    """
    losses = study.losses
    if not has_cooldowns(losses):
        return pd.DataFrame(columns=list(CHANGES))
    ends = select(losses, ema=COOLDOWN)
    direct = "gap" in ends and ends["gap"].notna().all() and (ends["gap"] > 0).all()
    of = "gap" if direct else "loss"
    rows = []
    lengths = average_lengths(losses)
    averages = {length: select(losses, ema=length).set_index(POINT) for length in lengths}
    place = ["sigma", "params", "flops"]
    for (sigma, params, flops), mine in ends.groupby(place, sort=False):
        at = pd.MultiIndex.from_frame(mine[POINT])
        beside = {length: frame.reindex(at) for length, frame in averages.items()}
        fitted = _fitted(study.config, lengths)
        means = {length: float(frame[of].mean(skipna=False)) for length, frame in beside.items()}
        best = min((length for length in lengths if np.isfinite(means[length])),
                   key=lambda length: means[length], default=fitted)  # fmt: skip
        row: dict[str, Any] = {
            "sigma": sigma, "model": mine["model"].iloc[0], "params": params, "flops": flops,
            "images": mine["images"].iloc[0] if "images" in mine else np.nan,
            "seeds": len(mine), "ema": fitted, "best_ema": best, "of": of,
        }  # fmt: skip
        for name, frame in (
            ("cooldown", mine),
            ("average", beside[fitted]),
            ("best", beside[best]),
        ):
            for column in ("gap", "loss"):
                known = column in frame
                row[f"{column}_{name}"] = frame[column].mean(skipna=False) if known else np.nan
        end = mine[of].to_numpy(float)
        row["change_percent"], row["change_se"] = _change(end, beside[fitted][of])
        row["change_best_percent"], row["change_best_se"] = _change(end, beside[best][of])
        rows.append(row)
    frame = pd.DataFrame(rows)[list(CHANGES)]
    number = frame["sigma"].where(frame["sigma"] != TOTAL, np.inf).astype(float)
    order = frame.assign(number=number).sort_values(["number", "params", "flops"])
    return order[list(CHANGES)]


def _fitted(config: FitConfig, lengths: list[float]) -> float:
    """The length of the average that branches are compared with."""
    return config.ema or lengths[0]


def _change(end_K: Any, average_K: Any) -> tuple[float, float]:
    """Change in per cent, the geometric mean over K seeds, and its standard error."""
    ratio_K = np.log(np.asarray(end_K, dtype=float) / np.asarray(average_K, dtype=float))
    factor = float(np.exp(ratio_K.mean()))
    error = ratio_K.std(ddof=1) / np.sqrt(len(ratio_K)) if len(ratio_K) > 1 else np.nan
    return 100 * (factor - 1), 100 * factor * float(error)


def cooldown_laws_frame(study: StudyFits) -> pd.DataFrame:
    """The joint law with the floor J*, of branch ends and of averages at the same snapshots.

    Two rows per (sigma or total); `status` says why there is no law. Snapshots before
    fit.min_images and before a size's onset are left out. Empty without cooldowns.
    """
    losses, config = study.losses, study.config
    if not has_cooldowns(losses):
        return pd.DataFrame(columns=list(LAWS))
    ends = study.rows_of(COOLDOWN)
    averages = select(losses, ema=_fitted(config, average_lengths(losses)))
    averages = averages.merge(ends[POINT], on=POINT)
    jobs = [
        (scale, rows[rows["sigma"] == scale.sigma], config, 2 * number + k)
        for number, scale in enumerate(study.scales)
        for k, rows in enumerate((ends, averages))
    ]
    found = in_processes(_law, jobs, "fit cooldowns", "laws")
    rows = []
    for k, ((scale, *_), law) in enumerate(zip(jobs, found, strict=True)):
        row: dict[str, Any] = dict.fromkeys(LAWS, np.nan) | {"sigma": scale.sigma, "of": OF[k % 2]}
        if isinstance(law, str):
            row["status"] = law
        else:
            row |= {name: getattr(law, name) for name in ("alpha", "a", "b", "n", "status")}
            row |= {"alpha_low": law.low["alpha"], "alpha_high": law.high["alpha"]}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(LAWS))


def _law(scale: ScaleFits, rows: pd.DataFrame, config: FitConfig, number: int) -> JointLaw | str:
    """The law with the floor J*, or why there is none."""
    optimal, error = scale.points.optimal, scale.points.optimal_se
    if not np.isfinite(optimal):
        return "no J*"
    prepared, direct = with_gap(rows, optimal)
    floor = optimal, 0.0 if direct else error
    points = joint_points(prepared, "loss_fit", floor, cluster_of(prepared, config.cluster))
    seed = config.seed + 1_000_003 * number
    scale_law = measure_law(points, "optimal", config.confidence, config.calibration, seed)
    return scale_law.laws.get("optimal", scale_law.status)
