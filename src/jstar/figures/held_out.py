"""Was the largest compute predicted? Refits of the joint law as ever more compute is fitted."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.figures.panels import flops_ticks, scale_title
from jstar.figures.scaling import chosen_scales
from jstar.figures.style import LAW_COLOR, PAGE, legend, log_ticks, new_figure, note, panel_title
from jstar.figures.tables import StudyTables

BAND_COLOR, BAND, WIDTH = "#999999", 0.35, 6.0
FURTHEST = 5.0  # measured / predicted, and its inverse
MARK: dict[str, dict[str, Any]] = {
    "hit": {"marker": "o", "color": LAW_COLOR["corrected"]},
    "miss": {"marker": "D", "color": LAW_COLOR["raw"]},
    "uninformative": {"marker": "o", "mfc": "white", "color": "#777777"},
}
MEANING = {
    "hit": "hit: inside the bar",
    "miss": "miss: outside",
    "uninformative": "no news: the bar would hold no progress at all",
}


def draw_held_out(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """One panel a noise scale, and one for the total loss."""
    columns = chosen_scales(tables, shown.sigmas)
    figure, axes = new_figure(1, len(columns), PAGE, 2.5)
    for panel, sigma in zip(axes[0], columns, strict=True):
        _panel(panel, tables, sigma)
        panel_title(panel, scale_title(sigma))
    axes[0, 0].set_ylabel("gap of the largest compute,\nmeasured / predicted")
    figure.supxlabel("compute up to which the law is fitted, $F$ (FLOPs)", fontsize=8.5)
    handles: list[Any] = [
        Line2D([], [], ls="", ms=4, label=MEANING[says], **MARK[says]) for says in MARK
    ]
    handles.append(Line2D([], [], color=BAND_COLOR, alpha=BAND, lw=WIDTH,
                          label=f"{100 * tables.confidence:g} % if the law holds"))  # fmt: skip
    legend(figure, handles)
    return figure, {
        "confidence": 100 * tables.confidence,
        "laws": [_numbers(tables, sigma) for sigma in columns],
        "counts": tables.verdicts["heldout_says"].value_counts().to_dict(),
    }


def _panel(panel: Axes, tables: StudyTables, sigma: float | str) -> None:
    rows = tables.at("held_out", sigma).sort_values("flops")
    panel.set_xscale("log")
    flops_ticks(panel, tables)
    if rows.empty:
        note(panel, "too few points")
        return
    panel.axhline(1, color="#444444", lw=0.6)
    low, high = (
        rows[end].clip(lower=1 / FURTHEST**2, upper=FURTHEST**2) for end in ("low", "high")
    )
    # A bar of little compute may leave the panel; the narrowest stays. What lies beyond the panel
    # has its edge.
    narrow = float(np.log(high / low).min()) / 2
    ratio = rows["ratio"].clip(1 / FURTHEST, FURTHEST)
    reach = 1.3 * max(float(np.log(ratio).abs().max()), min(narrow, float(np.log(FURTHEST))))
    log_ticks(panel, float(np.exp(-reach)), float(np.exp(reach)), 3)
    panel.vlines(rows["flops"], low, high, color=BAND_COLOR, alpha=BAND, lw=WIDTH)
    for flops, value, says in zip(rows["flops"], rows["ratio"], rows["says"], strict=True):
        shown = float(np.clip(value, np.exp(-reach), np.exp(reach)))
        panel.plot(flops, shown, ls="", ms=4, zorder=3, clip_on=False, **MARK[str(says)])


def _numbers(tables: StudyTables, sigma: float | str) -> dict[str, Any]:
    """The prediction from all but the top fifth, for a caption."""
    verdict = tables.at("verdicts", sigma).iloc[0]
    names = ("ratio", "low", "high", "says")
    numbers = {name: verdict[f"heldout_{name}"] for name in names}
    return {"sigma": sigma, "cuts": len(tables.at("held_out", sigma)), **numbers}
