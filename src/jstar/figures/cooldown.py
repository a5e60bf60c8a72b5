"""What a cooldown changes: the gap (or loss) at the end of its branch, and the exponent."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.errors import JstarError
from jstar.figures.panels import scale_title
from jstar.figures.style import (
    PAGE,
    images_ticks,
    legend,
    letter,
    new_figure,
    note,
    panel_title,
    sigma_axis,
    size_colors,
    size_handles,
)
from jstar.figures.tables import StudyTables
from jstar.scaling.joint_law import CONVERGED

LAW_STYLE: dict[str, dict[str, Any]] = {
    "average": {"color": "#777777", "marker": "s", "ms": 2.8},
    "cooldown": {"color": "#0072B2", "marker": "o", "ms": 3.2},
}
LAW_LABELS = {"average": r"$\alpha$ of averages", "cooldown": r"$\alpha$ of cooldowns"}
BEYOND = 2.2  # the total stands so many times the largest noise scale to the right
ZERO: dict[str, Any] = {"color": "#888888", "lw": 0.6, "zorder": 0}


def draw_cooldown(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """Change at the last snapshot over sigma and of the total over images; alpha of both."""
    if tables.cooldown.empty:
        raise JstarError("cooldown.csv: holds no ends of cooldowns (train.cooldown)")
    figure, axes = new_figure(1, 3, PAGE, 2.5, gridspec_kw={"width_ratios": [1.25, 0.9, 1.25]})
    change, growth, exponent = axes[0]
    _changes(change, tables)
    _growth(growth, tables)
    _exponents(exponent, tables)
    of = str(tables.cooldown["of"].iloc[0])
    change.set_ylabel(f"{of}: cooldown against average (%)")
    letter(axes[0])
    sizes = size_handles(tables.models, tables.params, marker="o", ms=2.4, lw=0.9)
    laws = [Line2D([], [], ls="", label=LAW_LABELS[name], **s) for name, s in LAW_STYLE.items()]
    legend(figure, [*sizes, *laws])
    return figure, _numbers(tables, of)


def last_changes(tables: StudyTables) -> pd.DataFrame:
    """The rows of each size's last snapshot with a cooldown."""
    rows = tables.cooldown
    return rows[rows["flops"] == rows.groupby("model")["flops"].transform("max")]


def _changes(panel: Axes, tables: StudyTables) -> None:
    """Change at the last snapshot over the noise scale, and of the total beside it."""
    rows, place = last_changes(tables), _place(tables)
    for model, color in size_colors(tables.models).items():
        size = rows[rows["model"] == model]
        x = size["sigma"].map(place)
        single = size["sigma"] != TOTAL
        panel.plot(x[single], size.loc[single, "change_percent"], color=color, lw=0.9, zorder=2)
        panel.errorbar(x, size["change_percent"], size["change_se"].fillna(0.0), color=color,
                       ls="", marker="o", ms=2.4, lw=0.8, zorder=3)  # fmt: skip
    panel.axhline(0, **ZERO)
    _sigma_and_total(panel, tables)
    panel_title(panel, "at the last snapshot")


def _growth(panel: Axes, tables: StudyTables) -> None:
    """Change of the total (of the largest noise scale without one) over the images seen."""
    rows = tables.at("cooldown", tables.scales[-1])
    if rows["images"].isna().any():
        note(panel, "no images")
        return
    for model, color in size_colors(tables.models).items():
        size = rows[rows["model"] == model]
        panel.errorbar(size["images"], size["change_percent"], size["change_se"].fillna(0.0),
                       color=color, marker="o", ms=2.4, lw=0.9)  # fmt: skip
    panel.axhline(0, **ZERO)
    images_ticks(panel, rows["images"].min(), rows["images"].max(), count=2)
    panel.set_xlabel("images seen")
    panel_title(panel, f"{scale_title(tables.scales[-1])}, every snapshot")


def _exponents(panel: Axes, tables: StudyTables) -> None:
    """alpha of the joint law with the floor J*, of the ends and of the averages beside them."""
    laws, place = tables.cooldown_laws, _place(tables)
    known = laws[laws["status"] == CONVERGED]
    panel_title(panel, r"exponent $\alpha$, floor $J^*$")
    if known.empty:
        note(panel, "no joint law of so few points")
        return
    for (of, style), shift in zip(LAW_STYLE.items(), (1 / 1.06, 1.06), strict=True):
        mine = known[known["of"] == of]
        ends = [mine["alpha"] - mine["alpha_low"], mine["alpha_high"] - mine["alpha"]]
        panel.errorbar(mine["sigma"].map(place) * shift, mine["alpha"],
                       np.clip(ends, 0, None), ls="", lw=0.9, **style)  # fmt: skip
    _sigma_and_total(panel, tables)
    # Long intervals may leave the panel: what counts are the estimates.
    steepest = float(known["alpha"].min())
    panel.set_ylim(1.5 * steepest, 0.1 * abs(steepest))
    panel.axhline(0, **ZERO)


def _place(tables: StudyTables) -> Any:
    """Where a cell of the column sigma stands: the total to the right of the noise scales."""
    top = float(tables.sigmas[-1])
    return lambda sigma: top * BEYOND if sigma == TOTAL else float(sigma)


def _sigma_and_total(panel: Axes, tables: StudyTables) -> None:
    sigmas = tables.sigmas
    end = sigmas[-1] * (BEYOND * 1.4 if TOTAL in tables.scales else 1.2)
    panel.set_xscale("log")
    panel.set_xlim(sigmas[0] / 1.2, end)
    sigma_axis(panel)
    if TOTAL in tables.scales:
        panel.axvline(sigmas[-1] * BEYOND**0.5, color="#BBBBBB", lw=0.6)
        panel.annotate("total", (sigmas[-1] * BEYOND, 0), xycoords=("data", "axes fraction"),
                       xytext=(0, 2), textcoords="offset points", ha="center",
                       fontsize=6.5, color="#555555")  # fmt: skip


def _numbers(tables: StudyTables, of: str) -> dict[str, Any]:
    rows, laws = last_changes(tables), tables.cooldown_laws
    scales = []
    for sigma in tables.scales:
        at = tables.at("cooldown", sigma)
        last = at[at.index.isin(rows.index)]
        laws_here = tables.at("cooldown_laws", sigma)
        scales.append(
            {
                "sigma": sigma,
                "low": float(last["change_percent"].min()),
                "high": float(last["change_percent"].max()),
                "best_low": float(last["change_best_percent"].min()),
                "best_high": float(last["change_best_percent"].max()),
                **{name: _exponent(laws_here, name) for name in LAW_STYLE},
            }
        )
    return {
        "of": of,
        "ema": float(rows["ema"].iloc[0]),
        "seeds": [int(rows["seeds"].min()), int(rows["seeds"].max())],
        "lower": int((rows["change_percent"] < 0).sum()),
        "cases": len(rows),
        "confidence": 100 * tables.confidence,
        "laws": int((laws["status"] == CONVERGED).sum()),
        "scales": scales,
    }


def _exponent(laws: pd.DataFrame, of: str) -> dict[str, Any]:
    """alpha with its interval where it may be quoted, and the status."""
    law = laws[laws["of"] == of].iloc[0]
    quoted = law["status"] == CONVERGED
    ends = {n: float(law[n]) if quoted else np.nan for n in ("alpha", "alpha_low", "alpha_high")}
    return {**ends, "status": str(law["status"])}
