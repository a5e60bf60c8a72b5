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
    variant_styles,
)
from jstar.records import read_json, read_table, write_record

LOSS_COLOR, GAP_COLOR, MEAN_COLOR = LAW_COLOR["raw"], LAW_COLOR["corrected"], "#777777"
READ = (
    "sigma", "loss", "loss_se", "optimal", "gap", "gap_se", "gap_share", "mean_image", "weight",
    "harm", "held_out", "upper", "floor_low", "floor_high",
)  # fmt: skip
DECADES = 6  # of losses that are shown, at most


def draw_denoiser(table: Path, stem: Path) -> None:
    """Write `stem`.pdf and .png from the table that `jstar diagnose` wrote."""
    mpl.use("Agg")
    files = draw_frame(read_table(table, READ), stem)
    if (record := table.with_suffix(".json")).is_file():
        write_record(record, read_json(record), files)


def draw_frame(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Write `stem`.pdf and .png of the table itself, and return both."""
    figure, axes = new_figure(1, 3, PAGE, 2.5)
    _losses(axes[0, 0], frame)
    _shares(axes[0, 1], frame)
    _harm(axes[0, 2], frame)
    for panel in axes[0]:
        panel.set_xscale("log")
        sigma_axis(panel)
    letter(axes[0])
    lines = [
        Line2D([], [], color=LOSS_COLOR, marker="o", ms=2.4, label=r"loss $J_\sigma$"),
        Line2D([], [], color=OPTIMAL_COLOR, label=r"optimal loss $J^*_\sigma$"),
        Line2D([], [], color=GAP_COLOR, marker="o", ms=2.4, label=r"gap $J_\sigma-J^*_\sigma$"),
        Line2D([], [], color=MEAN_COLOR, ls=(0, (1, 1.5)), label="loss of the mean image"),
        Line2D([], [], color=MEAN_COLOR, lw=0.9, label="best that cannot memorise"),
    ]
    if frame["held_out"].notna().any():
        lines.append(Line2D([], [], color=LOSS_COLOR, marker="o", mfc="white", ms=3, ls="",
                            label="held-out loss"))  # fmt: skip
    legend(figure, lines)
    return save([figure], stem)


def draw_side_by_side(
    denoisers: list[tuple[str, pd.DataFrame]], pairs: pd.DataFrame, stem: Path
) -> list[Path]:
    """Write `stem`.pdf and .png: the gaps of several denoisers, and each against the first's.

    denoisers: names with tables of READ; pairs: sigma, other, gap_first, difference,
    difference_se.
    """
    figure, axes = new_figure(1, 2, PAGE, 2.7)
    lines, looks = [], variant_styles([name for name, _ in denoisers])
    for name, frame in denoisers:
        look = {**looks[name], "ms": 2.8}
        bars = {**look, "elinewidth": 0.7, "ls": "-"}
        axes[0, 0].errorbar(frame["sigma"], frame["gap"], 2 * frame["gap_se"], **bars)
        lines.append(Line2D([], [], label=name, **look))
        rows = pairs[pairs["other"] == name]  # of the first there are none
        share, error = (rows[c] / rows["gap_first"] for c in ("difference", "difference_se"))
        axes[0, 1].errorbar(rows["sigma"], share, 2 * error, **bars)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel(r"gap $J_\sigma-J^*_\sigma$")
    panel_title(axes[0, 0], "gap")
    axes[0, 1].axhline(0, color=MEAN_COLOR, lw=0.9)
    axes[0, 1].set_ylabel("difference / gap of the first")
    panel_title(axes[0, 1], "same draws, against the first; 2 standard errors")
    for panel in axes[0]:
        panel.set_xscale("log")
        sigma_axis(panel)
    letter(axes[0])
    legend(figure, lines)
    return save([figure], stem)


def _losses(panel: Axes, frame: pd.DataFrame) -> None:
    sigma = frame["sigma"]
    panel.axhline(frame["mean_image"].iloc[0], color=MEAN_COLOR, lw=0.9, ls=(0, (1, 1.5)))
    panel.errorbar(sigma, frame["loss"], 2 * frame["loss_se"], fmt="o-", color=LOSS_COLOR, ms=2.4,
                   elinewidth=0.7)  # fmt: skip
    panel.plot(sigma, frame["held_out"], "o", color=LOSS_COLOR, mfc="white", ms=3)
    panel.plot(sigma, frame["upper"], color=MEAN_COLOR, lw=0.9)
    panel.fill_between(sigma, frame["floor_low"], frame["floor_high"], color=OPTIMAL_COLOR,
                       alpha=0.25, lw=0)  # fmt: skip
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


def _harm(panel: Axes, frame: pd.DataFrame) -> None:
    """Density over ln sigma of the bound on the sampling error, and of the weighted gap."""
    width = np.gradient(np.log(frame["sigma"].to_numpy()))
    trained = (frame["weight"] * frame["gap"]).to_numpy()
    for part, color, style in (
        (frame["harm"].to_numpy(), GAP_COLOR, "-"),
        (trained / max(trained.sum(), 1e-300), LOSS_COLOR, (0, (3, 1.5))),
    ):
        panel.plot(frame["sigma"], part / width, color=color, ls=style)
    panel.fill_between(frame["sigma"], 0, frame["harm"] / width, color=GAP_COLOR, alpha=0.2, lw=0)
    panel.set(ylim=(0, None), ylabel=r"share of the gap per unit of $\ln\sigma$")
    panel_title(panel, "where the gap harms; dashed: training weight")
