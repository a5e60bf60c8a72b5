"""Training curves, the joint law along its best sizes, the envelope, and what the law leaves."""

from collections.abc import Sequence
from itertools import permutations
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
    said = {float(sigma): verdict_of(tables, sigma) for sigma in tables.sigmas}
    count = min(count, len(said))
    if not count:
        return total
    low, high = np.log(min(said)), np.log(max(said))
    targets = [float(low + (k + 0.5) * (high - low) / count) for k in range(count)]
    words = [word for word in VERDICT_STYLE if word in said.values()][:count]
    wanted = [*words, *[None] * (count - len(words))]
    ways = [_nearest(said, wanted, order) for order in permutations(targets)]
    return [*sorted(min(ways)[1]), *total]


def _nearest(
    said: dict[float, str], wanted: Sequence[str | None], targets: Sequence[float]
) -> tuple[float, list[float]]:
    """For each word (None: any) the noise scale nearest to its target in ln sigma, each once.

    First how far all of them are from their targets.
    """
    far, chosen = 0.0, list[float]()
    for word, target in zip(wanted, targets, strict=True):
        able = [s for s in said if s not in chosen and word in (None, said[s])]
        chosen.append(min(able, key=lambda s: abs(np.log(s) - target)))
        far += float(np.log(chosen[-1]) - target) ** 2
    return far, chosen
