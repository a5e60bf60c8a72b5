"""Noise laws compared: p(sigma) and w(sigma) over training, and what they change."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from jstar.figures.style import (
    LAW_COLOR,
    OPTIMAL_COLOR,
    PAGE,
    label_rows,
    legend,
    letter,
    log_ticks,
    new_figure,
    panel_title,
    save,
    sigma_axis,
)
from jstar.records import read_json, read_table, write_record

COLORS = (LAW_COLOR["corrected"], LAW_COLOR["raw"], LAW_COLOR["free"])
OWN = (0, (4, 2))
STEP: Any = (0, (1, 1.5))
MORE = ("precision", "recall")  # quantities of which more is better


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
        axes[2, column].set_ylim(0, None)
        sigma_axis(axes[2, column])
        for panel in axes[:, column]:
            panel.axvline(_critical(at), color="#999999", lw=0.7, ls=STEP, zorder=0)
    log_ticks(axes[1, 0], *axes[1, 0].get_ylim())
    label_rows(figure, axes, [r"law $p$ per unit of $\ln\sigma$", r"gap $j-j^*$", "weight $w$"])
    bar = figure.colorbar(ScalarMappable(norm, palette), ax=axes, label="images seen",
                          aspect=30, pad=0.015)  # fmt: skip
    bar.ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bar.ax.yaxis.set_minor_formatter(StrMethodFormatter("{x:,.0f}"))
    handles = [
        Line2D([], [], color=LAW_COLOR["corrected"], lw=1.2, label="from the optimal loss"),
        Line2D([], [], color=OPTIMAL_COLOR, ls=OWN, lw=1, label="the process' own"),
        Line2D([], [], color="#999999", ls=STEP, lw=0.7,
               label=r"$\sigma^*$: below, where $J^*$ is 0, the law has another term"),
    ]  # fmt: skip
    legend(figure, handles)
    return figure


def _critical(rows: pd.DataFrame) -> float:
    """sigma* of a law: the only step of its weight, between two bins."""
    rows = rows.sort_values("sigma")
    step = int(np.diff(np.log(rows["weight"])).argmin())
    return float(np.sqrt(rows["sigma"].iloc[step] * rows["sigma"].iloc[step + 1]))


def _edges(sigma: pd.Series) -> Any:
    """Edges of bins that are equal in ln sigma, from their centres."""
    log_s = np.log(sigma.to_numpy())
    step = log_s[1] - log_s[0]
    return np.exp(np.concatenate([log_s - step / 2, [log_s[-1] + step / 2]]))


def effect_figure(gaps: pd.DataFrame, effect: pd.DataFrame, confidence: float) -> Figure:
    """Change of the gap at each noise scale; of what should be less and of what should be more."""
    less = [q for q in effect["quantity"].unique() if q not in MORE]
    more = [q for q in effect["quantity"].unique() if q in MORE]
    groups = [(name, group) for name, group in (("less", less), ("more", more)) if group]
    figure, axes = new_figure(
        len(groups), 2, PAGE, 3.1, width_ratios=[1.15, 1],
        gridspec_kw={"height_ratios": [len(group) for _, group in groups]},
    )  # fmt: skip
    grid = axes[0, 0].get_gridspec()
    for panel in axes[:, 0]:
        panel.remove()
    left = figure.add_subplot(grid[:, 0])
    processes = list(gaps["process"].unique())
    for color, name in zip(COLORS, processes, strict=False):
        rows = gaps[gaps["process"] == name]
        left.fill_between(rows["sigma"], 1 + rows["change_low"], 1 + rows["change_high"],
                          color=color, alpha=0.16, lw=0)  # fmt: skip
        left.plot(rows["sigma"], 1 + rows["change"], "o-", ms=2.4, lw=1, color=color)
    left.axhline(1, color="#999999", lw=0.6)
    left.set(xscale="log", yscale="log", ylabel="gap, optimal-loss law / own law")
    log_ticks(left, *left.get_ylim())
    sigma_axis(left)
    panel_title(left, "less is better")
    for panel, (better, group) in zip(axes[:, 1], groups, strict=True):
        _changes(panel, effect, processes, group)
        panel_title(panel, f"{better} is better")
    axes[-1, 1].set_xlabel(f"optimal-loss law / own law, {confidence:.0%} over seeds")
    letter([left, *axes[:, 1]])
    legend(figure, [Line2D([], [], color=color, marker="o", ms=3, lw=1, label=name.upper())
                    for color, name in zip(COLORS, processes, strict=False)])  # fmt: skip
    return figure


def _changes(panel: Axes, effect: pd.DataFrame, processes: list[str], group: list[str]) -> None:
    """The change of each quantity of a group, with its interval."""
    for k, name in enumerate(processes):
        found = effect[(effect["process"] == name) & effect["quantity"].isin(group)]
        place = [group.index(q) + 0.22 * (k - (len(processes) - 1) / 2) for q in found["quantity"]]
        error = [found["change"] - found["change_low"], found["change_high"] - found["change"]]
        panel.errorbar(1 + found["change"], place, xerr=error, fmt="o", ms=3.5, lw=1.2,
                       color=COLORS[k])  # fmt: skip
    panel.axvline(1, color="#999999", lw=0.6)
    names = [q.replace("sigma", r"$\sigma$").replace("J*", "$J^*$") for q in group]
    panel.set_yticks(range(len(group)), names)
    panel.set_ylim(len(group) - 0.5, -0.5)
    ends = 1 + effect[["change_low", "change_high"]].to_numpy(dtype=float).ravel()
    shown = np.append(ends[np.isfinite(ends) & (ends > 0)], 1.0)  # one seed has no interval
    log_ticks(panel, 0.95 * float(shown.min()), 1.05 * float(shown.max()), along="x")
