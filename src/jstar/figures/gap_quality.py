"""Figure: loss gap against sample quality over runs, noise scale by noise scale."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.constants import TOTAL
from jstar.figures.style import (
    FLOPS_LABEL,
    LAW_COLOR,
    PAGE,
    legend,
    letter,
    log_ticks,
    new_figure,
    note,
    panel_title,
    sigma_axis,
    size_colors,
    size_handles,
)

OF_COLOR = {"loss": LAW_COLOR["raw"], "gap": LAW_COLOR["corrected"]}
OF_LABEL = {"loss": r"loss $J_\sigma$", "gap": r"gap $J_\sigma-J^*_\sigma$"}
OF_LINE: dict[str, Any] = {"loss": (0, (3, 1.5)), "gap": "-"}


def draw_gap_quality(
    quality: pd.DataFrame, losses: pd.DataFrame, correlation: pd.DataFrame
) -> tuple[Figure, dict[str, Any]]:
    """FID over compute; its correlation with loss and gap over sigma; FID over the best gap.

    quality: the rows of the study's own sampler. losses: the training split. correlation: as
    `jstar.sampling.quality.correlation` wrote it.
    """
    figure, axes = new_figure(1, 3, PAGE, 2.45)
    sizes = quality.drop_duplicates("model").sort_values("params")
    models = [str(m) for m in sizes["model"]]
    colors = size_colors(models)
    _over_compute(axes[0, 0], quality, colors)
    coefficient = _over_sigma(axes[0, 1], correlation)
    best = _best_sigma(correlation)
    _scatter(axes[0, 2], quality, losses, best, colors)
    params = {str(m): int(p) for m, p in zip(sizes["model"], sizes["params"], strict=True)}
    letter(axes[0])
    handles = [
        Line2D([], [], color=OF_COLOR[of], ls=OF_LINE[of], label=OF_LABEL[of]) for of in OF_COLOR
    ]
    legend(figure, [*size_handles(models, params, marker="o", ms=3, lw=1), *handles])
    return figure, {
        "coefficient": coefficient,
        "best_sigma": best,
        "points": int(correlation["points"].max()),
        "runs": int(correlation["runs"].max()),
        "features": str(quality["features"].iloc[0]),
        "sampled": int(quality["sampled"].iloc[0]),
    }


def _over_compute(panel: Axes, quality: pd.DataFrame, colors: dict[str, Any]) -> None:
    for _, run in quality.groupby("run"):
        run = run.sort_values("flops")
        color = colors[str(run["model"].iloc[0])]
        panel.plot(run["flops"], run["fid"], "o-", color=color, lw=0.9, ms=2.6)
        panel.fill_between(run["flops"], run["fid_low"], run["fid_high"], color=color, alpha=0.25,
                           lw=0)  # fmt: skip
    panel.set(xlabel=FLOPS_LABEL, ylabel="FID")
    log_ticks(panel, quality["flops"].min() / 1.5, 1.5 * quality["flops"].max(), 3, along="x")
    _fid_axis(panel, quality)
    panel_title(panel, "sample quality")


def _over_sigma(panel: Axes, correlation: pd.DataFrame) -> dict[str, float]:
    """Coefficient of the logarithms with its interval; the largest of each kind is returned."""
    rows = correlation[(correlation["among"] == "all") & (correlation["sigma"] != TOTAL)]
    largest, lowest = dict.fromkeys(OF_COLOR, np.nan), 1.0
    for of, part in rows.groupby("of"):
        part = part.assign(sigma=part["sigma"].astype(float)).sort_values("sigma")
        if part["pearson"].notna().sum() == 0:
            continue
        largest[str(of)] = float(part["pearson"].max())
        style = {"color": OF_COLOR[str(of)], "ls": OF_LINE[str(of)]}
        panel.plot(part["sigma"], part["pearson"], **style)
        panel.fill_between(part["sigma"], part["pearson_low"], part["pearson_high"],
                           color=OF_COLOR[str(of)], alpha=0.15, lw=0)  # fmt: skip
        lowest = min(lowest, float(part["pearson_low"].fillna(part["pearson"]).min()))
    if not any(np.isfinite(list(largest.values()))):
        note(panel, "fewer than three snapshots")
        lowest = -1.0
    panel.set(
        xscale="log", ylabel="correlation with FID, in logs",
        ylim=(lowest - 0.08 * (1 - lowest), 1 + 0.04 * (1 - lowest)),
    )  # fmt: skip
    sigma_axis(panel)
    panel_title(panel, "which noise scales matter")
    return largest


def _best_sigma(correlation: pd.DataFrame) -> float:
    """The noise scale whose gap orders the images best."""
    rows = correlation[
        (correlation["among"] == "all")
        & (correlation["of"] == "gap")
        & (correlation["sigma"] != TOTAL)
    ]
    order = rows["pearson"].fillna(-np.inf).to_numpy(float)
    return float(rows["sigma"].astype(float).iloc[int(order.argmax())])


def _scatter(
    panel: Axes, quality: pd.DataFrame, losses: pd.DataFrame, sigma: float, colors: dict[str, Any]
) -> None:
    scale = pd.to_numeric(losses["sigma"], errors="coerce")
    gaps = losses.loc[np.isclose(scale, sigma, rtol=1e-6), ["run", "snapshot", "ema", "gap"]]
    both = quality.merge(gaps, on=["run", "snapshot", "ema"])
    for model, part in both.groupby("model"):
        panel.plot(part["gap"], part["fid"], "o", color=colors[str(model)], ms=3, mec="white",
                   mew=0.3)  # fmt: skip
    log_ticks(panel, both["gap"].min() / 1.1, 1.1 * both["gap"].max(), along="x")
    panel.set(xlabel=rf"gap at $\sigma={sigma:.3g}$, per dimension")
    _fid_axis(panel, quality)
    panel_title(panel, "at the best of them")


def _fid_axis(panel: Axes, quality: pd.DataFrame) -> None:
    seen = quality.loc[quality["fid"] > 0, "fid"]
    low = max(float(quality["fid_low"].min()), 0.5 * float(seen.min()))
    log_ticks(panel, low / 1.1, 1.1 * float(quality["fid_high"].max()))
