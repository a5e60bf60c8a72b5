"""What figures show of the joint law: one row a law, its compute-optimal line, its residuals."""

from typing import Any

import numpy as np
import pandas as pd

from jstar.figures.tables import StudyTables
from jstar.scaling.frontier import frontier

GRID = 80  # points of a line
# Exponents of the joint law, and where approaches.csv holds them.
CLAIMED = {
    "alpha": "alpha", "alpha_low": "alpha_low", "alpha_high": "alpha_high",
    "size_exponent": "size_exponent", "size_exponent_low": "size_low",
    "size_exponent_high": "size_high",
}  # fmt: skip


def verdict_of(tables: StudyTables, sigma: float | str) -> str:
    """The verdict of one noise scale."""
    return str(tables.at("verdicts", sigma)["verdict"].iloc[0])


def joint_approach(tables: StudyTables, sigma: float | str) -> "pd.Series[Any]":
    """What exponents the joint law may claim: its row of approaches.csv."""
    rows = tables.at("approaches", sigma)
    return rows[rows["approach"] == "joint"].iloc[0]


def joint_law(
    tables: StudyTables, sigma: float | str, floor: str | None = None, of: str = "fitted"
) -> "pd.Series[Any] | None":
    """Row of the joint law under a floor; None: the floor whose exponents stand (`joint_approach`).

    None comes back where the design allows no joint law, or there is no J*. of: `fitted`, J* +
    direct gap, or `measured`, the plain losses.
    """
    floor = floor or str(joint_approach(tables, sigma)["floor"])
    rows = tables.at("parametric", sigma)
    rows = rows[(rows["floor"] == floor) & (rows["of"] == of)]
    return rows.iloc[0] if len(rows) else None


def optimal_line(tables: StudyTables, sigma: float | str, law: "pd.Series[Any]") -> pd.DataFrame:
    """Lowest loss that the law allows at every compute F = c N D, over the fitted compute.

    c is the median of F / (N D). Minimising A n^-a + B d^-b at n d = F / (c N0 D0) gives
    n^(a+b) = (a A / b B) (F / c N0 D0)^b. Columns flops, loss, gap, inside (the size lies within
    the ladder).
    """
    rows = _with_images(tables, sigma)
    cost = float((rows["flops"] / (rows["params"] * rows["images"])).median())
    a, b = float(law["a"]), float(law["b"])
    flops = np.geomspace(rows["flops"].min(), rows["flops"].max(), GRID)
    work = flops / (cost * law["N0"] * law["D0"])
    n = (a * law["A"] / (b * law["B"]) * work**b) ** (1 / (a + b))
    loss = law["E"] + law["A"] * n**-a + law["B"] * (work / n) ** -b
    params = n * law["N0"]
    inside = (params >= rows["params"].min()) & (params <= rows["params"].max())
    optimal = float(tables.at("verdicts", sigma)["optimal"].iloc[0])
    return pd.DataFrame({"flops": flops, "loss": loss, "gap": loss - optimal, "inside": inside})


def joint_residuals(tables: StudyTables, sigma: float | str, law: "pd.Series[Any]") -> pd.DataFrame:
    """Every fitted row with law_loss and residual = ln(J / law)."""
    rows = _with_images(tables, sigma)
    data = rows["images"] / law["D0"]
    size = rows["params"] / law["N0"]
    law_loss = law["E"] + law["A"] * size ** -law["a"] + law["B"] * data ** -law["b"]
    return rows.assign(law_loss=law_loss, residual=np.log(rows["loss"] / law_loss))


def neighbours_alike(residuals: pd.DataFrame) -> float:
    """Correlation of the residuals of neighbouring snapshots, each less the mean of its run.

    0: noise; near 1: whole curves bend away from the law. nan where runs have one snapshot.
    """
    rows = residuals.sort_values("flops")
    left = rows["residual"] - rows.groupby("run")["residual"].transform("mean")
    before = left.groupby(rows["run"]).shift()
    left = left[before.notna()]
    scale = float(np.sqrt((left**2).sum() * (before**2).sum()))
    return float((left * before).sum() / scale) if scale > 0 else float("nan")


def r_squared_of_loss(measured: Any, law: Any) -> float:
    """R^2 of the logarithm; nan where one of them is not above 0."""
    measured, law = np.asarray(measured, dtype=float), np.asarray(law, dtype=float)
    if not (np.all(measured > 0) and np.all(law > 0)):
        return float("nan")
    y = np.log(measured)
    return float(1 - np.sum((y - np.log(law)) ** 2) / np.sum((y - y.mean()) ** 2))


def crossings(tables: StudyTables, sigma: float | str, column: str) -> pd.DataFrame:
    """Where a larger size takes over: flops, and the `column` (loss or gap) of the best size."""
    rows = tables.at("frontier", sigma)
    value = "gap" if rows["gap"].notna().all() else "loss"
    log_f = np.array(frontier(rows, value=value).crossings)
    curves = [
        np.interp(log_f, np.log(mean.index), mean, left=np.inf, right=np.inf)
        for _, part in rows.groupby("params")
        for mean in [part.groupby("flops")[column].mean()]
    ]
    return pd.DataFrame({"flops": np.exp(log_f), column: np.min(curves, axis=0)})


def joint_in_numbers(tables: StudyTables, sigma: float | str) -> dict[str, Any]:
    """The joint law whose exponents stand, for a caption; nan where there is none."""
    law, claimed = joint_law(tables, sigma), joint_approach(tables, sigma)
    names = ["E", "E_low", "E_high", *CLAIMED]
    if law is None:
        return {name: float("nan") for name in [*names, "r2", "r2_gap"]} | {
            "floor": "", "status": "no joint law",
        }  # fmt: skip
    rows = joint_residuals(tables, sigma, law)
    optimal = rows["loss"] - rows["gap"]
    # At a bound A and a (or B and b) trade places: E may still be known, the exponents are not.
    known = law["status"] == "converged"
    values = {name: float(law[name]) for name in ("E", "E_low", "E_high")}
    values |= {name: float(claimed[column]) for name, column in CLAIMED.items()}
    return {n: v if known or n.startswith("E") else float("nan") for n, v in values.items()} | {
        "floor": str(law["floor"]),
        "status": str(law["status"]),
        "r2": r_squared_of_loss(rows["loss"], rows["law_loss"]),
        "r2_gap": r_squared_of_loss(rows["gap"], rows["law_loss"] - optimal),
    }


def _with_images(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """The rows of the joint law with images; F / N stands for them where the table has none."""
    rows = tables.at("frontier", sigma)
    rows = rows[rows["fitted"]]
    if "images" not in tables.losses:
        return rows.assign(images=rows["flops"] / rows["params"])
    seen = tables.losses[["run", "flops", "images"]].drop_duplicates(["run", "flops"])
    return rows.merge(seen, on=["run", "flops"]).dropna(subset="images")
