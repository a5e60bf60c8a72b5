"""Tuning: the loss over the learning rate of every size, its minimum, and the width rule."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.figures.style import (
    PAGE,
    legend,
    letter,
    log_ticks,
    new_figure,
    panel_title,
    save,
    size_colors,
    size_handles,
)
from jstar.records import read_json, read_table, write_record

CHOSEN: dict[str, Any] = {"marker": "*", "ms": 7, "mec": "black", "mew": 0.4, "ls": ""}
PRIOR: dict[str, Any] = {"marker": "D", "ms": 3.6, "mfc": "white", "mew": 0.8, "ls": ""}
RULE: Any = (0, (4, 2))
SHOWN = 0.3  # of the loss above a size's minimum: what is worse says nothing of it


def draw_tuning(folder: Path) -> None:
    """Draw folder/tune (.pdf, .png) from the tables that `jstar tune` wrote."""
    mpl.use("Agg")
    tune, trials = read_table(folder / "tune.csv"), read_table(folder / "trials.csv")
    tune, trials = (t.assign(model=t["model"].astype(str)) for t in (tune, trials))
    files = save([tuning_figure(tune, trials)], folder / "tune")
    write_record(folder / "tune.json", read_json(folder / "tune.json"), files)


def tuning_figure(tune: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Loss over the rate, loss above the minimum over the rate / prior, rates over the width."""
    figure, axes = new_figure(1, 3, PAGE, 2.7)
    left, middle, right = axes[0]
    models = [str(model) for model in tune.sort_values(["params", "model"])["model"]]
    colors = size_colors(models)
    for model in models:
        best = tune[tune["model"] == model].iloc[0]
        rows = trials[(trials["model"] == model) & (trials["batch"] == best["batch"])]
        rows = rows[rows["loss"] <= (1 + SHOWN) * best["loss"]].sort_values("rate")
        color, line = colors[model], {"lw": 0.9, "marker": "o", "ms": 2.2}
        excess = 100 * (rows["loss"] / best["loss"] - 1)
        left.plot(rows["rate"], rows["loss"], color=color, **line)
        left.plot(best["rate"], best["loss"], color=color, **CHOSEN)
        left.plot(best["prior_rate"], best["prior_loss"], color=color, **PRIOR)
        middle.plot(rows["rate"] / best["prior_rate"], excess, color=color, **line)
        middle.plot(best["rate"] / best["prior_rate"], 0, color=color, **CHOSEN)
        ends = [[best["rate"] - best["rate_low"]], [best["rate_high"] - best["rate"]]]
        known = np.clip(np.nan_to_num(ends), 0, None)
        right.errorbar(best["width"], best["rate"], yerr=known, color=color, lw=1, **CHOSEN)
        right.plot(best["width"], best["prior_rate"], color=color, **PRIOR)
    middle.axvline(1, color="#777777", lw=0.7, ls=RULE)
    _rule(right, tune)
    for panel, title, across, up in (
        (left, "trials", "learning rate", "loss"),
        (middle, "above the minimum", "learning rate / prior", "loss above minimum (%)"),
        (right, "chosen", "width", "learning rate"),
    ):
        panel_title(panel, title)
        panel.set(xlabel=across, ylabel=up)
    _axes(left, middle, tune, trials)
    letter(axes[0])
    params = {str(m): int(p) for m, p in zip(tune["model"], tune["params"], strict=True)}
    handles = [
        Line2D([], [], color="#777777", label="minimum", **CHOSEN),
        Line2D([], [], color="#777777", label="prior: the width rule", **PRIOR),
    ]
    legend(figure, size_handles(models, params, lw=1.2), handles)
    return figure


def _axes(left: Axes, middle: Axes, tune: pd.DataFrame, trials: pd.DataFrame) -> None:
    """Log axes with plain numbers."""
    factor = trials["rate"] / trials["model"].map(tune.set_index("model")["prior_rate"])
    log_ticks(left, trials["rate"].min() / 1.2, trials["rate"].max() * 1.2, along="x")
    log_ticks(middle, factor.min() / 1.2, factor.max() * 1.2, along="x")
    low, high = tune["loss"].min(), min(trials["loss"].max(), (1 + SHOWN) * tune["loss"].max())
    log_ticks(left, low / 1.02, high * 1.02)
    middle.set_ylim(bottom=-0.06 * middle.get_ylim()[1])


def _rule(panel: Axes, tune: pd.DataFrame) -> None:
    """The width rule as a line through the priors."""
    line = tune.sort_values("width")
    panel.plot(line["width"], line["prior_rate"], color="#777777", lw=0.8, ls=RULE, zorder=0)
    reach = line["width"].min() / 1.3, line["width"].max() * 1.3
    rates = tune[["rate", "prior_rate", "rate_low", "rate_high"]]
    log_ticks(panel, *reach, along="x")
    log_ticks(panel, float(rates.min().min()) / 1.2, float(rates.max().max()) * 1.2)
