"""Training curves, the joint law along its best sizes, the envelope, and what the law leaves."""

from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.joint import verdict_of
from jstar.figures.panels import (
    WAVES,
    flops_ticks,
    law_in_numbers,
    law_lines,
    laws_legend,
    laws_panel,
    numbers_text,
    residual_panel,
    scale_title,
)
from jstar.figures.style import (
    FLOPS_LABEL,
    PAGE,
    VERDICT_STYLE,
    label_rows,
    new_figure,
    panel_title,
)
from jstar.figures.tables import StudyTables
from jstar.scaling.approaches import agreement

ROW_LABELS = (r"loss $J$", r"loss gap $J-J^*$", r"residual of $\ln J$ (%)")


def draw_scaling(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """One column a noise scale, and one for the total loss."""
    columns = chosen_scales(tables, shown.sigmas)
    figure, axes = new_figure(
        3, len(columns), PAGE, 5.2, sharex=True, gridspec_kw={"height_ratios": [1.7, 1.7, 1]}
    )
    draw_columns(figure, axes, tables, columns)
    laws = [
        law_in_numbers(tables, sigma) | {"agreement": agreement(tables.at("approaches", sigma))}
        for sigma in columns
    ]
    return figure, {"confidence": 100 * tables.confidence, "laws": laws, "waves": WAVES}


def draw_columns(figure: Figure, axes: Any, tables: StudyTables, columns: list[Any]) -> None:
    """Loss (axes[0]), gap (axes[1]) and residuals (axes[2]) of each column's noise scale."""
    for column, sigma in enumerate(columns):
        laws_panel(axes[0, column], tables, sigma, "loss")
        laws_panel(axes[1, column], tables, sigma, "gap")
        residual_panel(axes[2, column], tables, sigma)
        flops_ticks(axes[2, column], tables)
        numbers = law_in_numbers(tables, sigma)
        panel_title(axes[0, column], scale_title(sigma))
        verdict = numbers["verdict"]
        title = panel_title(axes[1, column], f"verdict: {verdict}")
        title.set_color(VERDICT_STYLE[verdict]["color"])
        numbers_text(axes[1, column], law_lines(numbers))
    label_rows(figure, axes, ROW_LABELS)
    figure.supxlabel(FLOPS_LABEL, fontsize=8.5)
    laws_legend(figure, tables, columns)


def chosen_scales(tables: StudyTables, count: int) -> list[float | str]:
    """`count` noise scales spread over ln sigma, each verdict where there is room; and the total.

    Words come before `undecided`: a study that gives one shows it.
    """
    total: list[float | str] = [s for s in tables.scales if s == TOTAL]
    left = {float(sigma): verdict_of(tables, sigma) for sigma in tables.sigmas}
    if not left:
        return total
    place = np.log(list(left))
    step = (place.max() - place.min()) / count
    targets = [float(place.min() + (k + 0.5) * step) for k in range(min(count, len(left)))]
    words = [word for word in VERDICT_STYLE if word in left.values()]
    chosen: list[float] = []
    while targets:
        word = words.pop(0) if words else None
        able = [sigma for sigma in left if word in (None, left[sigma])]
        pairs = product(able, targets)
        sigma, target = min(pairs, key=lambda pair: abs(np.log(pair[0]) - pair[1]))
        targets.remove(target)
        del left[sigma]
        chosen.append(sigma)
    return [*sorted(chosen), *total]
