"""One denoiser diagnosed: its loss, the floor, the gap and where the gap counts."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jstar.figures.style import (
    LAW_COLOR,
    OPTIMAL_COLOR,
    PAGE,
    legend,
    letter,
    log_ticks,
    new_figure,
    panel_title,
    save,
    sigma_axis,
)
from jstar.records import read_json, read_table, write_record

LOSS_COLOR, GAP_COLOR, MEAN_COLOR = LAW_COLOR["raw"], LAW_COLOR["corrected"], "#777777"
READ = ("sigma", "loss", "loss_se", "optimal", "gap", "gap_se", "gap_share", "mean_image", "weight")
DECADES = 6  # of losses that are shown, at most


def draw_denoiser(table: Path, stem: Path) -> None:
    """Write `stem`.pdf and .png from the table that `jstar diagnose` wrote."""
    mpl.use("Agg")
    frame = read_table(table, READ)
    figure, axes = new_figure(1, 3, PAGE, 2.5)
    _losses(axes[0, 0], frame)
    _shares(axes[0, 1], frame)
    _weighted(axes[0, 2], frame)
    for panel in axes[0]:
        panel.set_xscale("log")
        sigma_axis(panel)
    letter(axes[0])
    lines = [
        Line2D([], [], color=LOSS_COLOR, marker="o", ms=2.4, label=r"loss $J_\sigma$"),
        Line2D([], [], color=OPTIMAL_COLOR, label=r"optimal loss $J^*_\sigma$"),
        Line2D([], [], color=GAP_COLOR, marker="o", ms=2.4, label=r"gap $J_\sigma-J^*_\sigma$"),
        Line2D([], [], color=MEAN_COLOR, ls=(0, (1, 1.5)), label="loss of the mean image"),
    ]
    legend(figure, lines)
    files = save([figure], stem)
    if (record := table.with_suffix(".json")).is_file():
        write_record(record, read_json(record), files)


def _losses(panel: Axes, frame: pd.DataFrame) -> None:
    sigma = frame["sigma"]
    panel.axhline(frame["mean_image"].iloc[0], color=MEAN_COLOR, lw=0.9, ls=(0, (1, 1.5)))
    panel.plot(sigma, frame["loss"], "o-", color=LOSS_COLOR, ms=2.4)
    panel.plot(sigma, frame["optimal"].where(frame["optimal"] > 0), color=OPTIMAL_COLOR)
    panel.errorbar(sigma, frame["gap"], 2 * frame["gap_se"], fmt="o-", color=GAP_COLOR, ms=2.4,
                   lw=1.0, elinewidth=0.7)  # fmt: skip
    top = 2 * max(frame["loss"].max(), frame["mean_image"].max())
    shown = frame["gap"][frame["gap"] > 0]
    low = 0.5 * float(shown.min()) if len(shown) else top
    log_ticks(panel, max(low, top / 10**DECADES), top)
    panel.set_ylabel("mean squared error per dimension")
    panel_title(panel, "loss, floor and gap")


def _shares(panel: Axes, frame: pd.DataFrame) -> None:
    panel.fill_between(frame["sigma"], 0, frame["gap_share"], color=GAP_COLOR, alpha=0.25, lw=0)
    panel.fill_between(frame["sigma"], frame["gap_share"], 1, color=OPTIMAL_COLOR, alpha=0.12, lw=0)
    panel.plot(frame["sigma"], frame["gap_share"], "o-", color=GAP_COLOR, ms=2.4)
    panel.set(ylim=(0, 1), ylabel="share of the loss")
    panel_title(panel, "what is gap, what is floor")


def _weighted(panel: Axes, frame: pd.DataFrame) -> None:
    """Contributions to the weighted loss per unit of ln sigma: areas are shares of the total."""
    width = np.gradient(np.log(frame["sigma"].to_numpy()))
    width[[0, -1]] /= 2  # as the weights' trapezoids have it
    total = float((frame["weight"] * (frame["gap"] + frame["optimal"])).sum())
    gap, floor = (
        (frame["weight"] * frame[name] / total / width).to_numpy() for name in ("gap", "optimal")
    )
    panel.fill_between(frame["sigma"], 0, gap, color=GAP_COLOR, alpha=0.25, lw=0)
    panel.fill_between(frame["sigma"], gap, gap + floor, color=OPTIMAL_COLOR, alpha=0.12, lw=0)
    panel.plot(frame["sigma"], gap, color=GAP_COLOR)
    panel.plot(frame["sigma"], gap + floor, color=LOSS_COLOR)
    panel.set(ylim=(0, None), ylabel=r"share per unit of $\ln\sigma$")
    panel_title(panel, "where the weighted loss lies")
