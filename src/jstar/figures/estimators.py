"""Figures of the optimal loss itself: several datasets, and all estimators side by side.

They read curve.csv of any datasets and the tables that `jstar optimal-compare` wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from jstar.constants import CRITICAL_SHARE, NORMAL_95
from jstar.curve import read_curve
from jstar.errors import JstarError
from jstar.figures.style import (
    COLUMN,
    OPTIMAL_COLOR,
    PAGE,
    legend,
    letter,
    log_ticks,
    new_figure,
    panel_title,
    parameters_label,
    save,
    sigma_axis,
)
from jstar.records import provenance, read_json, read_table, write_record

LOSS_LABEL = r"optimal loss $J^*$ per dimension"
ESTIMATORS = {
    "exact": ("exact, all points", OPTIMAL_COLOR, "o"),
    "dol": ("DOL (lower bound)", "#0072B2", "v"),
    "cdol": ("cDOL", "#009E73", "s"),
    "snis": ("SNIS (upper bound)", "#D55E00", "^"),
}
FORMS = {
    "moment, random draws": ("moment form, random draws", "#D55E00", "--"),
    "moment": ("moment form, same draws", "#D55E00", "-"),
    "pair": ("pair form", "#0072B2", "-"),
    "pair+controls": ("with control variates", OPTIMAL_COLOR, "-"),
}


@dataclass(frozen=True)
class Comparison:
    """Tables of `jstar optimal-compare`, and what was compared."""

    estimators: pd.DataFrame
    convergence: pd.DataFrame
    forms: pd.DataFrame
    facts: dict[str, Any]

    def exact(self, sigma: float) -> tuple[float, float]:
        """J* and its standard error at a noise scale of the grid."""
        rows = self.estimators[self.estimators["estimator"] == "exact"]
        row = rows[np.isclose(rows["sigma"], sigma)].iloc[0]
        return float(row["loss"]), float(row["stderr"])


def draw_estimators(curves: list[Path], comparison: Path | None, out: Path) -> list[str]:
    """Write the figures (NAME.pdf, .png, .json) to the folder `out`; returns their names.

    curves: tables curve.csv, each in a folder named after its dataset. comparison: folder of
    `jstar optimal-compare`. Raises JstarError for a table that cannot be read.
    """
    mpl.use("Agg")
    drawn: dict[str, tuple[Figure, dict[str, Any]]] = {}
    if curves:
        named = {path.resolve().parent.name: path for path in curves}
        if len(named) < len(curves):
            raise JstarError(
                f"curves: {len(curves)} tables of {len(named)} datasets are given, each lies in a "
                "folder named after its dataset"
            )
        tables = {name: read_curve(path).to_frame() for name, path in named.items()}
        facts = {name: read_json(path.with_suffix(".json")) for name, path in named.items()}
        drawn["optimal_datasets"] = draw_datasets(tables, facts)
    if comparison is not None:
        found = load_comparison(comparison)
        parts: dict[str, Callable[[Comparison], tuple[Figure, dict[str, Any]]]] = {
            "optimal_estimators": draw_bounds,
            "optimal_convergence": draw_convergence,
            "optimal_forms": draw_forms,
        }
        drawn |= {name: draw(found) for name, draw in parts.items()}
    for name, (figure, numbers) in drawn.items():
        files = save([figure], out / name)
        write_record(out / f"{name}.json", provenance(figure=name, numbers=numbers), files)
    return list(drawn)


def load_comparison(folder: Path) -> Comparison:
    """Read what `jstar optimal-compare` wrote."""
    value = ("loss", "stderr")
    return Comparison(
        read_table(folder / "estimators.csv", ("sigma", "estimator", *value)),
        read_table(folder / "convergence.csv", ("varied", "value", "estimator", *value, "sigma")),
        read_table(folder / "forms.csv", ("sigma", "form", *value, "flops")),
        read_json(folder / "estimators.json"),
    )


def draw_datasets(
    tables: dict[str, pd.DataFrame], facts: dict[str, dict[str, Any]]
) -> tuple[Figure, dict[str, Any]]:
    """J*(sigma) of several datasets, with 95 % intervals."""
    figure, axes = new_figure(1, 1, COLUMN, 2.6)
    panel: Axes = axes[0, 0]
    palette = sns.color_palette("colorblind", n_colors=len(tables))
    for (name, curve), color in zip(tables.items(), palette, strict=True):
        panel.fill_between(
            curve["sigma"], curve["lower"], curve["upper"], color=color, alpha=0.25, lw=0
        )
        points = f"{facts[name]['count']:,}".replace(",", "\u2009")
        panel.plot(curve["sigma"], curve["loss"], color=color, label=f"{name}, N = {points}")
    sigma_axis(panel)
    panel.set_ylabel(LOSS_LABEL)
    panel.set_ylim(0, 1.05 * max(curve["loss"].max() for curve in tables.values()))
    legend(figure, panel.get_legend_handles_labels()[0])
    keys = ("count", "dim", "variance", "closure", "log_count", "critical_sigma", "queries")
    return figure, {name: {key: fact.get(key) for key in keys} for name, fact in facts.items()}


def draw_bounds(found: Comparison) -> tuple[Figure, dict[str, Any]]:
    """The subset estimators against the exact one: values with the two-sided bound, and errors."""
    figure, axes = new_figure(1, 2, PAGE, 2.6)
    values, errors = axes[0]
    wide = found.estimators.pivot_table(
        index="sigma", columns="estimator", values=["loss", "stderr"]
    )
    exact, exact_se = wide["loss", "exact"], wide["stderr", "exact"]
    shown = exact > CRITICAL_SHARE * found.facts["variance"]
    low = wide["loss", "dol"] - NORMAL_95 * wide["stderr", "dol"]
    high = wide["loss", "snis"] + NORMAL_95 * wide["stderr", "snis"]
    values.fill_between(wide.index, low, high, color="#999999", alpha=0.3, lw=0,
                        label="between the bounds, 95 %")  # fmt: skip
    worst: dict[str, float] = {}
    for shift, (name, (label, color, marker)) in enumerate(ESTIMATORS.items()):
        loss, stderr = wide["loss", name], wide["stderr", name]
        values.plot(wide.index, loss, color=color, label=label, lw=1.4 if name == "exact" else 0.9,
                    marker="" if name == "exact" else marker, ms=2.5)  # fmt: skip
        if name != "exact":
            relative = 100 * (loss / exact - 1)[shown]
            bar = 100 * (np.hypot(stderr, loss / exact * exact_se) / exact)[shown]
            place = wide.index[shown] * 1.03 ** (shift - 2)
            errors.errorbar(place, relative, NORMAL_95 * bar, color=color, fmt=f"{marker}-", lw=0.9,
                            ms=2.5, elinewidth=0.7)  # fmt: skip
            worst[name] = float(relative.abs().max())
    errors.axhline(0, color=OPTIMAL_COLOR, lw=0.8)
    errors.set_yscale("symlog", linthresh=10, linscale=1.5)
    errors.set_ylim(None, 3 * max(10.0, *worst.values()))
    errors.yaxis.set_major_locator(FixedLocator([-100, -10, 0, 10, 100, 1000, 10_000]))
    errors.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: f"{y:+g} %".replace("-", "\u2212") if y else "0")
    )
    errors.yaxis.set_minor_locator(NullLocator())
    for panel in (values, errors):
        sigma_axis(panel)
    values.set(ylabel=LOSS_LABEL, ylim=(0, None))
    panel_title(values, f"{found.facts['dataset']}, subsets of {found.facts['subset']}")
    panel_title(errors, "relative to exact, 95 % intervals")
    letter(axes[0])
    legend(figure, values.get_legend_handles_labels()[0])
    rounding = 1e-9 * found.facts["variance"]  # where both are nothing
    inside = (low <= exact + rounding) & (exact <= high + rounding)
    return figure, {
        "worst_percent": worst,
        "inside_the_bounds": f"{int(inside.sum())} of {len(inside)} noise scales",
        **{key: found.facts[key] for key in ("dataset", "count", "subset", "queries")},
    }


def draw_convergence(found: Comparison) -> tuple[Figure, dict[str, Any]]:
    """DOL, cDOL and SNIS at one noise scale over the number of subsets, their size and C."""
    figure, axes = new_figure(1, 3, PAGE, 2.5, sharey=True)
    table = found.convergence
    sigma = float(table["sigma"].iloc[0])
    exact, stderr = found.exact(sigma)
    share = found.facts["count"] / found.facts["subset"]
    titles = {
        "subsets": ("number of subsets", "linear"),
        "L": ("points $L$ in a subset", "log"),
        "C": ("constant $C$ of cDOL", "log"),
    }
    for panel, (varied, (title, scale)) in zip(axes[0], titles.items(), strict=True):
        panel.axhspan(exact - NORMAL_95 * stderr, exact + NORMAL_95 * stderr, color="#999999",
                      alpha=0.3, lw=0)  # fmt: skip
        panel.axhline(exact, color=OPTIMAL_COLOR, lw=1.0)
        for name in ("dol", "cdol", "snis"):
            rows = table[(table["varied"] == varied) & (table["estimator"] == name)]
            _, color, marker = ESTIMATORS[name]
            panel.errorbar(rows["value"], rows["loss"], NORMAL_95 * rows["stderr"], color=color,
                           fmt=f"{marker}-", lw=0.9, ms=3, elinewidth=0.7)  # fmt: skip
        panel.set(xscale=scale, xlabel=title)
        if scale == "log":
            low, high = panel.get_xlim()
            log_ticks(panel, low, high, 3, "x", parameters_label)
    letter(axes[0])
    bottom = axes[0, 2].get_xaxis_transform()
    for constant, word in ((share, "$N/L$"), (4 * share, "$4N/L$")):
        axes[0, 2].axvline(constant, color="#777777", lw=0.7, ls=":")
        axes[0, 2].text(1.05 * constant, 0.03, word, transform=bottom, va="bottom", fontsize=7)
    axes[0, 0].set_ylabel(rf"$J^*$ at $\sigma$ = {sigma:.2g}")
    labels = {name: ESTIMATORS[name] for name in ("exact", "dol", "cdol", "snis")}
    handles = [
        Line2D([], [], color=color, marker="" if name == "exact" else marker, ms=3, label=text)
        for name, (text, color, marker) in labels.items()
    ]
    legend(figure, handles)
    numbers = {"sigma": sigma, "exact": exact, "exact_stderr": stderr, "share": share}
    return figure, numbers | {key: found.facts[key] for key in ("dataset", "count", "subset")}


def draw_forms(found: Comparison) -> tuple[Figure, dict[str, Any]]:
    """Standard errors of the forms from the same draws, and the FLOPs of a 1 % error."""
    figure, axes = new_figure(1, 2, PAGE, 2.6)
    errors, costs = axes[0]
    wide = found.forms.pivot_table(
        index="sigma", columns="form", values=["loss", "stderr", "flops"]
    )
    exact = wide["loss", "pair+controls"]
    shown = exact > CRITICAL_SHARE * found.facts["variance"]
    for name, (label, color, line) in FORMS.items():
        stderr = wide["stderr", name].where(wide["stderr", name] > 0)
        errors.plot(wide.index[shown], stderr[shown], line, color=color, label=label)
        needed = wide["flops", name] * (stderr / (0.01 * exact)) ** 2
        costs.plot(wide.index[shown], needed[shown], line, color=color)
    for panel in (errors, costs):
        panel.set_yscale("log")
        log_ticks(panel, *panel.get_ylim())
        sigma_axis(panel)
    errors.set_ylabel("standard error of $J^*$")
    costs.set_ylabel("FLOPs of the whole curve")
    panel_title(errors, f"{found.facts['dataset']}, {found.facts['queries']} antithetic draws")
    panel_title(costs, "for a standard error of 1 % of $J^*$")
    letter(axes[0])
    legend(figure, errors.get_legend_handles_labels()[0])
    ratio = {
        name: wide["stderr", name] / wide["stderr", "pair+controls"]
        for name in ("moment", "moment, random draws", "pair")
    }
    below = shown & (wide.index < 8)
    return figure, {
        "geometric_mean_below_8": {
            name: float(np.exp(np.log(value[below]).mean())) for name, value in ratio.items()
        },
        "smallest_ratio": {name: float(value[shown].min()) for name, value in ratio.items()},
        "noise_scales": [float(s) for s in wide.index[shown]],
        **{key: found.facts[key] for key in ("dataset", "count", "queries")},
    }
