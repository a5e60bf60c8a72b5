"""Training against held-out loss of every variant: what is memorised."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jstar.config import Study
from jstar.figures.style import (
    PAGE,
    SIGMA_LABEL,
    new_figure,
    note,
    panel_title,
    variant_legend,
    variant_styles,
)
from jstar.figures.tables import VariantTables


def draw(tables: VariantTables, study: Study) -> tuple[Figure, dict[str, Any]]:
    """Held-out over training loss - 1: by noise scale at the end, and over training time."""
    figure, axes = new_figure(1, 2, PAGE, 2.7)
    by_sigma, over_time = axes[0]
    panel_title(by_sigma, "at the end of training")
    panel_title(over_time, "mean over the noise scales")
    by_sigma.set(xscale="log", xlabel=SIGMA_LABEL, ylabel="held-out / training loss − 1")
    over_time.set(xscale="log", xlabel="images seen")
    if tables.last["holdout"].isna().any():
        for panel in (by_sigma, over_time):
            note(panel, "the dataset has no held-out images")
        return figure, {"measured": False}
    ends = {}
    for model, style in variant_styles(tables.models).items():
        mean = tables.mean(model)
        _by_sigma(by_sigma, mean, style)
        ratio = _over_time(tables, model)
        over_time.plot(ratio.index, ratio, lw=0.9, ms=2.6, **style)
        ends[model] = float(ratio.iloc[-1])
    for panel in (by_sigma, over_time):
        panel.axhline(0, color="#888888", lw=0.6, zorder=1)
    variant_legend(figure, tables.models)
    return figure, {
        "measured": True,
        "lowest": min(ends.values()),
        "highest": max(ends.values()),
        "error": float(np.median(_relative_error(tables.last))),
        "images": tables.facts["images"],
    }


def _relative_error(rows: pd.DataFrame) -> Any:
    """Standard error of the ratio of the two losses."""
    return np.hypot(rows["holdout_se"] / rows["holdout"], rows["loss_se"] / rows["loss"])


def _by_sigma(panel: Axes, mean: pd.DataFrame, style: dict[str, Any]) -> None:
    ratio, error = mean["holdout"] / mean["loss"] - 1, 2 * _relative_error(mean)
    panel.plot(mean["sigma"], ratio, lw=0.9, ms=2.6, **style)
    panel.fill_between(mean["sigma"], ratio - error, ratio + error, color=style["color"],
                       alpha=0.06, lw=0)  # fmt: skip


def _over_time(tables: VariantTables, model: str) -> "pd.Series[float]":
    """Mean over the noise scales of held-out over training loss - 1, by images seen."""
    rows = tables.losses[(tables.losses["model"] == model) & (tables.losses["sigma"] != "total")]
    loss = rows.pivot_table(index=["images", "sigma"], columns="split", values="loss")
    return (loss["holdout"] / loss["train"] - 1).groupby("images").mean()
