"""Training against held-out loss of every variant: what is memorised."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.style import (
    PAGE,
    SIGMA_LABEL,
    images_ticks,
    letter,
    new_figure,
    note,
    panel_title,
    sigma_axis,
    variant_legend,
    variant_styles,
)
from jstar.figures.tables import VariantTables


def draw_memorisation(tables: VariantTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """Held-out over training loss - 1: by noise scale at the end, and over training time."""
    figure, axes = new_figure(1, 2, PAGE, 2.7, sharey=True)
    by_sigma, over_time = axes[0]
    panel_title(by_sigma, "at the end of training")
    panel_title(over_time, "mean over the noise scales")
    by_sigma.set(xlabel=SIGMA_LABEL, ylabel="held-out / training loss − 1 (%)")
    letter(axes[0])
    over_time.set(xlabel="images seen")
    if tables.last["holdout"].isna().any():
        for panel in (by_sigma, over_time):
            note(panel, "the dataset has no held-out images")
        return figure, {"measured": False}
    ends = {}
    for model, style in variant_styles(tables.models).items():
        mean, ratio = tables.mean(model), _over_time(tables, model)
        line = {"lw": 0.9, "ms": 2.6, **style}
        by_sigma.semilogx(mean["sigma"], 100 * (mean["holdout"] / mean["loss"] - 1), **line)
        over_time.plot(ratio.index, 100 * ratio, **line)
        ends[model] = float(ratio.iloc[-1])
    error = _bands(by_sigma, over_time, tables)
    sigma_axis(by_sigma)
    variant_legend(figure, tables.models)
    return figure, {
        "measured": True,
        "lowest": min(ends.values()),
        "highest": max(ends.values()),
        "error": error,
        "images": tables.facts["images"],
    }


def _bands(by_sigma: Axes, over_time: Axes, tables: VariantTables) -> float:
    """Two standard errors about zero, nearly the same for all variants; the mean one.

    The noise scales share their images: their errors do not average out.
    """
    last = tables.last
    error = (
        last.assign(
            error=np.hypot(last["holdout_se"] / last["holdout"], last["loss_se"] / last["loss"])
        )
        .groupby("sigma")["error"]
        .median()
    )
    wide: dict[str, Any] = {"color": "#888888", "alpha": 0.18, "lw": 0, "zorder": 0}
    by_sigma.fill_between(error.index, -200 * error, 200 * error, **wide)
    images_ticks(over_time, *tables.span)
    over_time.axhspan(-200 * error.mean(), 200 * error.mean(), **wide)
    for panel in (by_sigma, over_time):
        panel.axhline(0, color="#888888", lw=0.6, zorder=1)
    return float(error.mean())


def _over_time(tables: VariantTables, model: str) -> "pd.Series[float]":
    """Mean over the noise scales of held-out over training loss - 1, by images seen."""
    rows = tables.losses[(tables.losses["model"] == model) & (tables.losses["sigma"] != TOTAL)]
    loss = rows.pivot_table(index=["images", "sigma"], columns="split", values="loss")
    return (loss["holdout"] / loss["train"] - 1).groupby("images").mean()
