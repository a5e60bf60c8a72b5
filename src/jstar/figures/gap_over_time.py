"""The gap of every training variant over the images seen, at a few noise scales."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jstar.config import FiguresConfig
from jstar.figures.panels import scale_title
from jstar.figures.style import (
    PAGE,
    images_ticks,
    label_rows,
    log_ticks,
    new_figure,
    panel_title,
    variant_legend,
    variant_styles,
)
from jstar.figures.tables import VariantTables

SHARES = (0.0, 0.05, 0.5, 1.0)  # J* / variance, but for the ends: where the panels are


def draw_gap_over_time(
    tables: VariantTables, shown: FiguresConfig
) -> tuple[Figure, dict[str, Any]]:
    """One panel a noise scale: the smallest, J* = 5 % and 50 % of the variance, the largest."""
    sigmas = _picked(tables)
    figure, axes = new_figure(1, len(sigmas), PAGE, 2.5)
    falls: list[dict[str, Any]] = []
    for panel, sigma in zip(axes[0], sigmas, strict=True):
        for model, style in variant_styles(tables.models).items():
            rows = tables.over_time(model, "train", sigma)
            panel.plot(rows["images"], rows["gap"], lw=0.9, ms=2.6, **style)
            falls.append({"model": model, "sigma": sigma,
                          "fall": float(rows["gap"].iloc[0] / rows["gap"].iloc[-1])})  # fmt: skip
        panel.set(yscale="log", xlabel="images seen")
        log_ticks(panel, *panel.get_ylim())
        images_ticks(panel, *tables.span)
        panel_title(panel, scale_title(sigma))
    label_rows(figure, axes, [r"gap $J_\sigma-J^*_\sigma$"])
    variant_legend(figure, tables.models)
    least = min(falls, key=lambda f: f["fall"])
    most = max(falls, key=lambda f: f["fall"])
    return figure, {"sigmas": sigmas, "least": least, "most": most}


def _picked(tables: VariantTables) -> list[float]:
    """Noise scales of the grid at which J* is nearest to `SHARES` of the variance."""
    sigma = tables.curve["sigma"].to_numpy()
    share = tables.curve["loss"].to_numpy() / float(tables.facts["variance"])
    inner = [int(np.abs(share - wanted).argmin()) for wanted in SHARES[1:-1]]
    return [float(sigma[k]) for k in sorted({0, *inner, len(sigma) - 1})]
