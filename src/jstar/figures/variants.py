"""Training variants at equal size, data and compute: loss, gap and relative gap by noise scale.

The figure of arXiv 2506.13763, Fig. 2a, with every loss converted to the x0 error at sigma.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.figures.style import (
    OPTIMAL_COLOR,
    PAGE,
    letter,
    log_ticks,
    new_figure,
    panel_title,
    sigma_axis,
    variant_legend,
    variant_styles,
)
from jstar.figures.tables import VariantTables


def draw_variants(tables: VariantTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """Four panels at the last snapshot: J and J*, the gap, the gap over J*, over the best gap."""
    figure, axes = new_figure(2, 2, PAGE, 5.2, sharex=True)
    means = {model: tables.mean(model) for model in tables.models}
    best_S = np.min([m["gap"] for m in means.values()], axis=0)
    for model, style in variant_styles(tables.models).items():
        _lines(axes, means[model], best_S, tables.facts["critical_sigma"], style)
    _floor(axes, tables)
    _labels(axes)
    optimal = Line2D([], [], color=OPTIMAL_COLOR, lw=1.4, label="$J^*$")
    variant_legend(figure, tables.models, optimal)
    return figure, _numbers(tables, means)


def _lines(
    axes: Any, mean: pd.DataFrame, best_S: Any, critical: float, style: dict[str, Any]
) -> None:
    line = {"lw": 0.9, "ms": 2.6, **style}
    sigma, gap, error = mean["sigma"], mean["gap"], 2 * mean["gap_se"]
    axes[0, 0].plot(sigma, mean["loss"], **line)
    axes[0, 1].plot(sigma, gap, **line)
    axes[0, 1].fill_between(sigma, gap - error, gap + error, color=style["color"], alpha=0.2, lw=0)
    seen = mean["sigma"] >= critical
    axes[1, 0].plot(sigma[seen], (gap / mean["optimal"])[seen], **line)
    axes[1, 1].plot(sigma, gap / best_S, **line)


def _floor(axes: Any, tables: VariantTables) -> None:
    """J* itself, and the gap of the mean image: above it a network does harm."""
    curve, variance = tables.curve, float(tables.facts["variance"])
    loss = curve["loss"].where(curve["loss"] > 0)
    axes[0, 0].plot(curve["sigma"], loss, color=OPTIMAL_COLOR, lw=1.4, zorder=3)
    low = 0.6 * float(tables.last["loss"].min())
    log_ticks(axes[0, 0], low, 2 * max(variance, float(tables.last["loss"].max())))
    mean_gap = (variance - curve["loss"]).where(curve["loss"] < variance)
    style = {"color": "#777777", "lw": 0.9, "ls": (0, (1, 1.5)), "zorder": 1}
    gaps = tables.last["gap"]
    axes[0, 1].plot(curve["sigma"], mean_gap, **style)
    log_ticks(axes[0, 1], 0.5 * gaps.min(), 2 * max(float(gaps.max()), variance))
    axes[0, 1].annotate("mean image", (curve["sigma"].iloc[0], variance), xytext=(2, 3),
                        textcoords="offset points", color="#777777", fontsize=7)  # fmt: skip


def _labels(axes: Any) -> None:
    names = [
        (r"loss $J_\sigma$ and $J^*_\sigma$", "squared error per dimension"),
        (r"gap $J_\sigma-J^*_\sigma$", "squared error per dimension"),
        (r"relative gap $(J_\sigma-J^*_\sigma)/J^*_\sigma$", r"gap over $J^*$"),
        ("gap beside the best variant's", "gap over smallest gap"),
    ]
    panel: Axes
    for panel, (title, label) in zip(axes.flat, names, strict=True):
        panel.set(yscale="log", ylabel=label)
        panel_title(panel, title)
        sigma_axis(panel)
    for panel in axes[0]:
        panel.set_xlabel("")
    for panel in axes[1]:
        log_ticks(panel, *panel.get_ylim())
    letter(axes.ravel())


def _numbers(tables: VariantTables, means: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What the caption says."""
    top = {m: float(f["gap"].iloc[-1] / f["optimal"].iloc[-1]) for m, f in means.items()}
    return {
        "variants": len(means),
        "params": int(tables.last["params"].max()),
        "images": tables.facts["images"],
        "sigma_top": float(tables.curve["sigma"].iloc[-1]),
        "top": [{"name": m, "relative_gap": top[m]} for m in sorted(top, key=lambda k: top[k])],
        "words": tables.facts["words"],
    }
