"""The corrected exponent when one choice is made otherwise."""

from math import ceil
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.panels import (
    AS_FITTED,
    choices_of,
    law_in_numbers,
    scale_title,
    sensitivity_panel,
)
from jstar.figures.scaling import chosen_scales
from jstar.figures.style import (
    LAW_COLOR,
    PAGE,
    SIGMA_LABEL,
    legend,
    new_figure,
    note,
    panel_title,
)
from jstar.figures.tables import StudyTables

CLIP = 4.0  # shifts beyond it have the colour of the end
LABELS = 9  # noise scales that are named below the map, at most


def draw_sensitivity(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """Above, the exponent of a few noise scales; below, how far it moves at every one."""
    columns = chosen_scales(tables, shown.sigmas)
    choices = choices_of(tables.sensitivity)
    height = 2 * 0.16 * max(len(choices), 4) + 1.9
    figure, axes = new_figure(2, len(columns), PAGE, height, sharey=True)
    for column, sigma in enumerate(columns):
        sensitivity_panel(axes[0, column], tables.at("sensitivity", sigma), choices)
        panel_title(axes[0, column], scale_title(sigma))
        axes[0, column].set_xlabel(r"exponent $\alpha$")
        axes[1, column].remove()
    below = figure.add_subplot(axes[0, 0].get_gridspec()[1, :], sharey=axes[0, 0])
    _map(figure, below, tables, choices)
    axes[0, 0].tick_params(axis="y", labelsize=7)
    legend(figure, _handles(tables))
    return figure, _numbers(tables, columns)


def _map(figure: Figure, panel: Axes, tables: StudyTables, choices: list[str]) -> None:
    """Shift of the exponent in standard errors, choices downwards, noise scales across."""
    scales, frame = tables.scales, tables.sensitivity
    panel.tick_params(axis="y", length=0, labelsize=7)
    panel.spines[["left", "bottom"]].set_visible(False)
    if frame.empty:
        panel.set_xticks([])
        note(panel, "no corrected law")
        return
    shift = np.full((len(choices), len(scales)), np.nan)
    for column, sigma in enumerate(scales):
        rows = tables.at("sensitivity", sigma).set_index("choice")["shift_in_se"]
        shift[:, column] = rows.reindex(choices).to_numpy(dtype=float)
    colors = mpl.colormaps["PuOr_r"].with_extremes(bad="#dddddd")  # does not apply, or has no fit
    edges = np.arange(len(scales) + 1) - 0.5
    mesh = panel.pcolormesh(
        edges, np.arange(len(choices) + 1) - 0.5, shift,
        cmap=colors, vmin=-CLIP, vmax=CLIP, edgecolors="white", linewidth=0.6,
    )  # fmt: skip
    step = ceil(len(scales) / LABELS)
    named = [k for k, s in enumerate(scales) if k % step == 0 or s == TOTAL]
    panel.set_xticks(named, [s if (s := scales[k]) == TOTAL else f"{s:.3g}" for k in named])
    panel.set_xlabel(SIGMA_LABEL)
    panel_title(panel, "all noise scales")
    bar = figure.colorbar(mesh, ax=panel, pad=0.01, aspect=14, extend="both")
    bar.set_label(r"shift of $\alpha$ (standard errors)", fontsize=7.5)
    bar.outline.set_linewidth(0.4)


def _handles(tables: StudyTables) -> list[Any]:
    band = f"{100 * tables.confidence:g} % interval"
    blue, orange = LAW_COLOR["corrected"], LAW_COLOR["raw"]
    return [
        Line2D([], [], color=blue, lw=5, alpha=0.25, label=f"headline exponent, {band}"),
        Line2D(
            [],
            [],
            ls="",
            marker="o",
            ms=3.2,
            color=blue,
            label="one choice made otherwise, inside it",
        ),
        Line2D([], [], ls="", marker="D", ms=3.2, color=orange, label="outside it"),
    ]


def _numbers(tables: StudyTables, columns: list[float | str]) -> dict[str, Any]:
    """How many choices leave the headline interval, the largest shift, and the chosen columns."""
    frame = tables.sensitivity
    base = frame[frame["choice"] == AS_FITTED].set_index("sigma")
    others = frame[(frame["choice"] != AS_FITTED) & frame["shift_in_se"].notna()]
    low, high = (others["sigma"].map(base[end]) for end in ("alpha_low", "alpha_high"))
    ranked = others.sort_values("shift_in_se", key=lambda shift: -shift.abs(), kind="stable")
    laws = []
    for sigma in columns:
        alpha = tables.at("sensitivity", sigma)["alpha"]
        span = {"lowest": alpha.min(), "highest": alpha.max()}
        laws.append({**law_in_numbers(tables, sigma), **span})
    return {
        "confidence": 100 * tables.confidence,
        "laws": laws,
        "choices": len(others),
        "outside": int(((others["alpha"] < low) | (others["alpha"] > high)).sum()),
        "worst": ranked.iloc[0][["choice", "sigma", "shift_in_se"]].to_dict()
        if len(ranked)
        else {},
    }
