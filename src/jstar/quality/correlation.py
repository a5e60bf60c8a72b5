"""Does a smaller loss gap mean better images? Correlation over runs, noise scale by noise scale.

Figure 2b of arXiv 2506.13763, with intervals. Both axes in logs, so that Pearson's coefficient is
that of a power law; Spearman's knows only the order. Imports no torch.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata

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
    x, y = np.log(points[of].to_numpy(float)), np.log(points["fid"].to_numpy(float))
    members = [np.flatnonzero(points["run"] == run) for run in points["run"].unique()]
    rng = np.random.default_rng(0)
    draws: dict[str, list[float]] = {name: [] for name in COEFFICIENTS}
    if len(members) >= LEAST_RUNS:
        for _ in range(DRAWS):
            index = np.concatenate(
                [members[k] for k in rng.integers(len(members), size=len(members))]
            )
            for name, value in _both(x[index], y[index]).items():
                draws[name].append(value)
    out: dict[str, float] = {}
    for name, value in _both(x, y).items():
        seen = np.array(draws[name])
        seen = seen[np.isfinite(seen)]
        low, high = np.quantile(seen, [0.025, 0.975]) if len(seen) else (np.nan, np.nan)
        out |= {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
    return out


def _both(x: Floats, y: Floats) -> dict[str, float]:
    """Both coefficients; not a number where fewer than three points differ."""
    if len(np.unique(x)) < 3 or len(np.unique(y)) < 3:
        return dict.fromkeys(COEFFICIENTS, np.nan)
    return {
        "pearson": float(pearsonr(x, y)[0]),
        "spearman": float(pearsonr(rankdata(x), rankdata(y))[0]),
    }
