"""Noise laws compared: p(sigma) and w(sigma) over training, and what they change."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    LogLocator,
    NullFormatter,
    StrMethodFormatter,
)

from jstar.figures.style import (
    LAW_COLOR,
    OPTIMAL_COLOR,
    PAGE,
    SIGMA_LABEL,
    label_rows,
    new_figure,
    panel_title,
    save,
)
from jstar.records import read_json, read_table, write_record

COLORS = (LAW_COLOR["corrected"], LAW_COLOR["raw"], LAW_COLOR["free"])
OWN = (0, (4, 2))


def draw_noise(folder: Path) -> None:
    """Draw folder/law and folder/effect (.pdf, .png) from the tables that `write_noise` wrote."""
    mpl.use("Agg")
    law, gaps, effect = (read_table(folder / f"{name}.csv") for name in ("law", "gaps", "effect"))
    facts = read_json(folder / "effect.json")
    files = save([law_figure(law)], folder / "law")
    files += save([effect_figure(gaps, effect, float(facts["confidence"]))], folder / "effect")
    write_record(folder / "effect.json", facts, files)


def law_figure(law: pd.DataFrame) -> Figure:
    """p(sigma), gap and w(sigma) of the first seed of each process, coloured by images seen."""
    processes = list(law["process"].unique())
    figure, axes = new_figure(3, len(processes), PAGE, 5.6, sharex=True, sharey="row")
    first = law[law["seed"] == law["seed"].min()]
    shown = sorted(first["images"].unique())
    norm, palette = LogNorm(shown[0], shown[-1]), colormaps["viridis_r"]
    for column, name in enumerate(processes):
        rows = first[first["process"] == name]
        for images in shown:
            at = rows[rows["images"] == images]
            color = palette(norm(images))
            axes[0, column].stairs(at["density"], _edges(at["sigma"]), color=color, lw=1)
            axes[1, column].plot(at["sigma"], at["gap"].where(at["gap"] > 0), color=color, lw=1)
        axes[0, column].plot(at["sigma"], at["own_density"], color=OPTIMAL_COLOR, ls=OWN, lw=1)
        axes[2, column].plot(at["sigma"], at["weight"], color=LAW_COLOR["corrected"])
        axes[2, column].plot(at["sigma"], at["own_weight"], color=OPTIMAL_COLOR, ls=OWN, lw=1)
        panel_title(axes[0, column], name.upper())
        axes[0, column].set(xscale="log", ylim=(0, None))
        axes[1, column].set(yscale="log")
        axes[2, column].set(ylim=(0, None), xlabel=SIGMA_LABEL)
    label_rows(figure, axes, [r"law $p$ per unit of $\ln\sigma$", r"gap $j-j^*$", "weight $w$"])
    bar = figure.colorbar(ScalarMappable(norm, palette), ax=axes, label="images seen",
                          aspect=30, pad=0.015)  # fmt: skip
    bar.ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bar.ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:,.0f}"))
    handles = [
        Line2D([], [], color=LAW_COLOR["corrected"], lw=1.2, label="from the optimal loss"),
        Line2D([], [], color=OPTIMAL_COLOR, ls=OWN, lw=1, label="the process' own"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _edges(sigma: pd.Series) -> Any:
    """Edges of bins that are equal in ln sigma, from their centres."""
    log_s = np.log(sigma.to_numpy())
    step = log_s[1] - log_s[0]
    return np.exp(np.concatenate([log_s - step / 2, [log_s[-1] + step / 2]]))


def effect_figure(gaps: pd.DataFrame, effect: pd.DataFrame, confidence: float) -> Figure:
    """Change of the gap at each noise scale, and of totals and quality, with intervals."""
    figure, axes = new_figure(1, 2, PAGE, 2.7, width_ratios=[1.15, 1])
    left, right = axes[0]
    processes = list(gaps["process"].unique())
    quantities = list(effect["quantity"].unique())
    for k, name in enumerate(processes):
        rows, color = gaps[gaps["process"] == name], COLORS[k]
        left.fill_between(rows["sigma"], 1 + rows["change_low"], 1 + rows["change_high"],
                          color=color, alpha=0.2, lw=0)  # fmt: skip
        left.plot(rows["sigma"], 1 + rows["change"], "o-", ms=2.4, lw=1, color=color)
        found = effect[effect["process"] == name]
        place = [quantities.index(q) + 0.22 * (k - (len(processes) - 1) / 2)
                 for q in found["quantity"]]  # fmt: skip
        error = [found["change"] - found["change_low"], found["change_high"] - found["change"]]
        right.errorbar(1 + found["change"], place, xerr=error, fmt="o", ms=3.5, lw=1.2, color=color)
    left.axhline(1, color="#999999", lw=0.6)
    left.set(xscale="log", yscale="log", xlabel=SIGMA_LABEL)
    left.set_ylabel("gap, optimal-loss law / own law")
    right.axvline(1, color="#999999", lw=0.6)
    right.set_yticks(range(len(quantities)), [q.replace("sigma", r"$\sigma$") for q in quantities])
    right.set_ylim(len(quantities) - 0.5, -0.5)
    right.set(xscale="log", xlabel=f"optimal-loss law / own law, {confidence:.0%} over seeds")
    for axis in (left.yaxis, right.xaxis):
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    handles = [Line2D([], [], color=COLORS[k], marker="o", ms=3, lw=1, label=name.upper())
               for k, name in enumerate(processes)]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure
