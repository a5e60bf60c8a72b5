"""Exponents with their intervals over the noise scale, raw against corrected."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jstar.config import FiguresConfig
from jstar.constants import TOTAL
from jstar.figures.panels import LAWS, law_in_numbers
from jstar.figures.style import (
    COLUMN,
    LAW_COLOR,
    LAW_LABEL,
    ONE_LOSS,
    SIGMA_LABEL,
    new_figure,
    note,
)
from jstar.figures.tables import StudyTables

MARKER = {"raw": "s", "corrected": "o"}
VERDICT_COLOR = {"corrected": LAW_COLOR["corrected"], "raw": LAW_COLOR["raw"]}


def draw_exponents(tables: StudyTables, shown: FiguresConfig) -> tuple[Figure, dict[str, Any]]:
    """alpha(sigma) with its intervals above, R^2 of each law's own response below."""
    figure, axes = new_figure(
        2, 1, COLUMN, 3.9, sharex=True, gridspec_kw={"height_ratios": [1.7, 1]}
    )
    top, bottom = axes[0, 0], axes[1, 0]
    step = (tables.sigmas[1] / tables.sigmas[0]) ** 0.12 if len(tables.sigmas) > 1 else 1.0
    quoted = _numbered(tables.fits[tables.fits["status"] == "converged"])
    for law, shift in zip(LAWS, (1 / step, step), strict=True):
        fits = quoted[quoted["law"] == law]
        # A bootstrap interval may, rarely, not hold the estimate: no negative bar then.
        error = [fits["alpha"] - fits["alpha_low"], fits["alpha_high"] - fits["alpha"]]
        top.errorbar(fits["sigma"] * shift, fits["alpha"], np.clip(error, 0, None), fmt=MARKER[law],
                     color=LAW_COLOR[law], ms=3, lw=0.9, capsize=1.5)  # fmt: skip
        bottom.plot(fits["sigma"], fits["r2"], MARKER[law] + "-", color=LAW_COLOR[law], lw=0.8,
                    ms=2.8)  # fmt: skip
    top.set(xscale="log", ylabel=r"exponent $\alpha$")
    bottom.set(ylabel=r"$R^2$, own response", xlabel=SIGMA_LABEL)
    if len(tables.sigmas):
        top.set_xlim(float(tables.sigmas[0]) / 1.4, float(tables.sigmas[-1]) * 1.4)
    if quoted.empty:
        status = str(tables.fits["status"].iloc[0]) if len(tables.sigmas) else ONE_LOSS
        note(top, status)
        note(bottom, status)
    else:
        top.axhline(0, color="#888888", lw=0.6, zorder=0)
        bottom.set_ylim(max(-0.05, min(0.9, float(quoted["r2"].min()) - 0.05)), 1.03)
    handles = [Line2D([], [], color=LAW_COLOR[law], marker=MARKER[law], ms=3, lw=0.9,
                      label=LAW_LABEL[law]) for law in LAWS]  # fmt: skip
    handles.append(Line2D([], [], ls="", marker="v", ms=4, color="#888888", mfc="white",
                          label="verdict (open: undecided)"))  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    _verdicts(top, tables)
    figure.align_ylabels(axes[:, 0])
    return figure, _numbers(tables)


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of single noise scales, with sigma as a number, in order."""
    rows = frame[frame["sigma"] != TOTAL].copy()
    rows["sigma"] = rows["sigma"].astype(float)
    return rows.sort_values("sigma")


def _verdicts(panel: Axes, tables: StudyTables) -> None:
    """A strip along the upper edge: filled in the colour of the law that won, open if undecided."""
    rows = _numbered(tables.verdicts)
    for sigma, verdict in zip(rows["sigma"], rows["verdict"], strict=True):
        color = VERDICT_COLOR.get(str(verdict))
        panel.plot(sigma, 1.04, marker="v", ms=4, mew=0.6, clip_on=False,
                   transform=panel.get_xaxis_transform(),
                   mfc=color or "white", mec=color or "#888888")  # fmt: skip


def _numbers(tables: StudyTables) -> dict[str, Any]:
    verdicts = _numbered(tables.verdicts)["verdict"].astype(str)
    scales = tables.scales
    named = {"first": scales[0], "last": [s for s in scales if s != TOTAL or len(scales) == 1][-1]}
    return {
        "confidence": 100 * tables.confidence,
        "verdicts": verdicts.value_counts().to_dict(),
        "scales": len(verdicts),
        "total": law_in_numbers(tables, TOTAL) if scales[-1] == TOTAL else None,
        **{name: law_in_numbers(tables, sigma) for name, sigma in named.items()},
    }
