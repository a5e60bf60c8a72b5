"""Every noise scale and the total: loss, gap and residuals as small multiples, page by page."""

from math import ceil
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jstar.config import FiguresConfig
from jstar.figures.panels import (
    flops_ticks,
    law_in_numbers,
    laws_legend,
    laws_panel,
    residual_panel,
    scale_title,
    signed,
)
from jstar.figures.style import FLOPS_LABEL, PAGE, VERDICT_STYLE, new_figure, panel_title
from jstar.figures.tables import StudyTables

ACROSS, DOWN = 6, 3  # noise scales on a page, at most
SMALL = 5.5  # points, of text within a panel
HEIGHTS = (1.0, 1.0, 0.6)  # of loss, gap and residuals
ROW_LABELS = (r"loss $J$", r"loss gap $J-J^*$", "residual\n" r"of $\ln J$ (%)")


def draw_scaling_by_sigma(
    tables: StudyTables, shown: FiguresConfig
) -> tuple[list[Figure], dict[str, Any]]:
    """As many pages as the noise scales need, each with its legend."""
    scales = tables.scales
    rows = ceil(len(scales) / ACROSS)
    columns = ceil(len(scales) / rows)
    size = columns * DOWN
    pages = [_page(tables, scales[k : k + size], columns) for k in range(0, len(scales), size)]
    return pages, {
        "confidence": 100 * tables.confidence,
        "laws": [law_in_numbers(tables, sigma) for sigma in scales],
    }


def _page(tables: StudyTables, scales: list[float | str], columns: int) -> Figure:
    rows = ceil(len(scales) / columns)
    figure, axes = new_figure(
        3 * rows, columns, PAGE, 2.75 * rows + 0.55, gridspec_kw={"height_ratios": HEIGHTS * rows}
    )
    for panel in axes[-3:, (len(scales) - 1) % columns + 1 :].flat:
        panel.set_visible(False)
    for number, sigma in enumerate(scales):
        row, column = 3 * (number // columns), number % columns
        _cell(axes[row : row + 3, column], tables, sigma)
    for row in range(3 * rows):
        axes[row, 0].set_ylabel(ROW_LABELS[row % 3], fontsize=7.5)
    figure.align_ylabels(axes[:, 0])
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, rect=(0, 0, 0.985, 1))
    figure.supxlabel(FLOPS_LABEL, fontsize=8.5)
    laws_legend(figure, tables, scales)
    return figure


def _cell(axes: Any, tables: StudyTables, sigma: float | str) -> None:
    """Loss, gap and residuals of one noise scale, above one another."""
    laws_panel(axes[0], tables, sigma, "loss", ticks=3, size=SMALL)
    laws_panel(axes[1], tables, sigma, "gap", ticks=3)
    residual_panel(axes[2], tables, sigma, ticks=2, size=SMALL)
    panel_title(axes[0], scale_title(sigma))
    numbers = law_in_numbers(tables, sigma)
    verdict, joint = numbers["verdict"], numbers["joint"]
    exponent = rf", $\alpha$ = {signed(joint['alpha'])}" if np.isfinite(joint["alpha"]) else ""
    title = panel_title(axes[1], verdict + exponent, fontsize=6.2)
    title.set_color(VERDICT_STYLE[verdict]["color"])
    for panel in axes:
        flops_ticks(panel, tables)
        panel.tick_params(labelsize=6, pad=1.5, labelbottom=panel is axes[2])
