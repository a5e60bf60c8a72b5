"""Does a smaller loss gap mean better images? Correlation over runs, noise scale by noise scale.

Figure 2b of arXiv 2506.13763, with intervals. Both axes in logs, so that Pearson's coefficient is
that of a power law; Spearman's knows only the order. Imports no torch.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.records import LOSSES_COLUMNS, provenance, read_table, write_table

Floats = NDArray[np.float64]

COEFFICIENTS = ("pearson", "spearman")
DRAWS = 2000
LEAST_RUNS = 4  # fewer have no bootstrap worth the name


def write_quality_tables(quality: list[Path], losses: list[Path], out: Path) -> pd.DataFrame:
    """Write quality.csv (all runs) and correlation.csv to the folder `out`; returns the latter.

    Raises JstarError if the tables hold values of different feature networks.
    """
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
    )
    write_table(out / "quality.csv", together, facts)
    write_table(out / "correlation.csv", frame, facts)
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
    x_n, y_n = np.log(points[of].to_numpy(float)), np.log(points["fid"].to_numpy(float))
    runs, member_n = np.unique(points["run"], return_inverse=True)
    out = _both(x_n, y_n, np.ones((1, len(x_n))))
    draws_B = {name: np.full(1, np.nan) for name in out}
    if len(runs) >= LEAST_RUNS:
        # Drawing runs with replacement is weighting their points by how often they were drawn.
        equal = np.full(len(runs), 1 / len(runs))
        count_BR = np.random.default_rng(0).multinomial(len(runs), equal, size=DRAWS)
        draws_B = _both(x_n, y_n, count_BR[:, member_n].astype(np.float64))
    row: dict[str, float] = {}
    for name in COEFFICIENTS:
        seen_B = draws_B[name][np.isfinite(draws_B[name])]
        low, high = np.quantile(seen_B, [0.025, 0.975]) if len(seen_B) else (np.nan, np.nan)
        row |= {name: float(out[name][0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return row


def _both(x_n: Floats, y_n: Floats, weight_Bn: Floats) -> dict[str, Floats]:
    """Coefficients [B] of points with whole-number weights; at least three points must differ."""
    if len(np.unique(x_n)) < 3 or len(np.unique(y_n)) < 3:
        return {name: np.full(len(weight_Bn), np.nan) for name in COEFFICIENTS}
    ranks = (_ranks(x_n, weight_Bn), _ranks(y_n, weight_Bn))
    return {
        "pearson": _pearson(x_n[None], y_n[None], weight_Bn),
        "spearman": _pearson(*ranks, weight_Bn),
    }


def _ranks(value_n: Floats, weight_Bn: Floats) -> Floats:
    """Mid-ranks [B, n], up to a constant, of values that occur `weight` times."""
    below_nn = (value_n[:, None] < value_n) + 0.5 * (value_n[:, None] == value_n)
    return np.asarray(weight_Bn @ below_nn)


def _pearson(x_Bn: Floats, y_Bn: Floats, weight_Bn: Floats) -> Floats:
    share_Bn = weight_Bn / weight_Bn.sum(axis=1, keepdims=True)
    x_Bn = x_Bn - (share_Bn * x_Bn).sum(axis=1, keepdims=True)
    y_Bn = y_Bn - (share_Bn * y_Bn).sum(axis=1, keepdims=True)
    both, x2, y2 = ((share_Bn * p).sum(axis=1) for p in (x_Bn * y_Bn, x_Bn**2, y_Bn**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(both / np.sqrt(x2 * y2))
