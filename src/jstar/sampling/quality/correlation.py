"""Does a smaller loss gap mean better images? Correlation over runs, noise scale by noise scale.

Figure 2b of arXiv 2506.13763, with intervals. Both axes in logs, so that Pearson's coefficient is
that of a power law; Spearman's knows only the order. Imports no torch.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.manifest import CARD, parents, require_of_run, require_together, say_unrecorded
from jstar.records import LOSSES_COLUMNS, provenance, read_table, write_table

Floats = NDArray[np.float64]

COEFFICIENTS = ("pearson", "spearman")
DRAWS = 2000
LEAST_RUNS = 4  # fewer have no bootstrap worth the name


def write_quality_tables(quality: list[Path], losses: list[Path], out: Path) -> pd.DataFrame:
    """Write quality.csv (all runs) and correlation.csv to the folder `out`; returns the latter.

    Raises JstarError if the tables are of different feature networks or training distributions, or
    of other runs than those in whose folders they lie.
    """
    require_of_run([*quality, *losses])
    require_together([*quality, *losses], CARD)
    needed = ("run", "snapshot", "ema", "features", "fid")
    tables = [read_table(path, needed) for path in quality]
    together = pd.concat(tables, ignore_index=True)
    networks = together["features"].unique()
    if len(networks) > 1:
        raise JstarError(
            f"{quality[0]}: FIDs of different features ({', '.join(networks)}) cannot be compared; "
            "sample all runs again"
        )
    # The first row of a snapshot is the study's own sampler, the others are of the sweep.
    own = together.drop_duplicates(["run", "snapshot"])
    measured = pd.concat([read_table(path, LOSSES_COLUMNS) for path in losses])
    measured = measured[measured["split"] == "train"].assign(sigma=lambda f: f["sigma"].astype(str))
    points = measured.merge(own[["run", "snapshot", "ema", "fid"]], on=["run", "snapshot", "ema"])
    frame = correlation(points)
    facts = provenance(
        features=networks[0] if len(networks) else None,
        of="ln loss or ln gap against ln FID",
        intervals=f"95 %, bootstrap of whole runs, {DRAWS} draws",
        **parents(out / "quality.csv", [*quality, *losses]),
    )
    write_table(out / "quality.csv", together, facts)
    write_table(out / "correlation.csv", frame, facts)
    say_unrecorded([*quality, *losses])
    return frame


def correlation(points: pd.DataFrame) -> pd.DataFrame:
    """Pearson and Spearman of ln(loss) and ln(gap) with ln(FID), for every sigma.

    points: columns run, flops, sigma, loss, gap, fid. `among` = all: every sampled snapshot;
    last: the last of each run, where only the runs differ. Intervals resample whole runs.
    """
    rows = []
    newest = points["flops"] == points.groupby("run")["flops"].transform("max")
    for among, chosen in (("all", points), ("last", points[newest])):
        for sigma, at_sigma in chosen.groupby("sigma", sort=False):
            for of in ("loss", "gap"):
                usable = at_sigma[(at_sigma[of] > 0) & (at_sigma["fid"] > 0)]
                rows.append(
                    {
                        "sigma": sigma, "of": of, "among": among, "points": len(usable),
                        "runs": usable["run"].nunique(), **_coefficients(usable, of),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _coefficients(points: pd.DataFrame, of: str) -> dict[str, float]:
    """Both coefficients and their intervals; not a number where there is too little for them."""
    x_P, y_P = np.log(points[of].to_numpy(float)), np.log(points["fid"].to_numpy(float))
    runs, member_P = np.unique(points["run"], return_inverse=True)
    out = _both(x_P, y_P, np.ones((1, len(x_P))))
    draws_Q = {name: np.full(1, np.nan) for name in out}
    if len(runs) >= LEAST_RUNS:
        # Drawing runs with replacement is weighting their points by how often they were drawn.
        equal = np.full(len(runs), 1 / len(runs))
        count_QR = np.random.default_rng(0).multinomial(len(runs), equal, size=DRAWS)
        draws_Q = _both(x_P, y_P, count_QR[:, member_P].astype(np.float64))
    row: dict[str, float] = {}
    for name in COEFFICIENTS:
        finite = draws_Q[name][np.isfinite(draws_Q[name])]
        low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
        row |= {name: float(out[name][0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return row


def _both(x_P: Floats, y_P: Floats, weight_QP: Floats) -> dict[str, Floats]:
    """Coefficients [Q] of points with whole-number weights; at least three points must differ."""
    if len(np.unique(x_P)) < 3 or len(np.unique(y_P)) < 3:
        return {name: np.full(len(weight_QP), np.nan) for name in COEFFICIENTS}
    ranks = (_ranks(x_P, weight_QP), _ranks(y_P, weight_QP))
    return {
        "pearson": _pearson(x_P[None], y_P[None], weight_QP),
        "spearman": _pearson(*ranks, weight_QP),
    }


def _ranks(value_P: Floats, weight_QP: Floats) -> Floats:
    """Mid-ranks [Q, P], up to a constant, of values that occur `weight` times."""
    below_PP = (value_P[:, None] < value_P) + 0.5 * (value_P[:, None] == value_P)
    return np.asarray(weight_QP @ below_PP)


def _pearson(x_QP: Floats, y_QP: Floats, weight_QP: Floats) -> Floats:
    share_QP = weight_QP / weight_QP.sum(axis=1, keepdims=True)
    x_QP = x_QP - (share_QP * x_QP).sum(axis=1, keepdims=True)
    y_QP = y_QP - (share_QP * y_QP).sum(axis=1, keepdims=True)
    both, x2, y2 = ((share_QP * p).sum(axis=1) for p in (x_QP * y_QP, x_QP**2, y_QP**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(both / np.sqrt(x2 * y2))
