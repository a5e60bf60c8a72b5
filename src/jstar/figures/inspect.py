"""What the notebook inspect_fits calls: one noise scale at a time, tables and small figures."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jstar.figures.scaling import LAWS, chosen_sigmas, draw_panels
from jstar.figures.style import FLOPS_LABEL, LAW_COLOR, LAW_LABEL, new_figure
from jstar.figures.tables import StudyTables, load_tables
from jstar.layout import Layout


def load(layout: Layout) -> StudyTables:
    """The study's tables."""
    study = layout.study
    return load_tables(layout.fits, layout.curve, study.fit.ema or study.train.ema[0])


def default_sigma(tables: StudyTables) -> float:
    """A noise scale at which J* is about nine tenths of the best loss."""
    return chosen_sigmas(tables, 1)[0]


def laws(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """The three laws at one noise scale."""
    columns = ["law", "alpha", "alpha_low", "alpha_high", "beta", "offset", "r2", "r2_response",
               "aicc", "n", "status"]  # fmt: skip
    return tables.at("fits", sigma)[columns].set_index("law").T


def verdict(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """Which law predicts ln J better, if that can be said."""
    return tables.at("verdicts", sigma).set_index("sigma").T


def curves(tables: StudyTables, sigma: float | str) -> Figure:
    """Loss and gap of every run, the frontier, and both laws."""
    figure, axes = new_figure(1, 2, 6.9, 2.8)
    draw_panels(figure, axes.T, tables, [sigma])
    return figure


def residuals(tables: StudyTables, sigma: float | str) -> Figure:
    """ln(measured) - ln(law) of the frontier points, each law in its own response."""
    figure, axes = new_figure(1, 2, 6.9, 2.2, sharex=True)
    rows = tables.at("residuals", sigma)
    for panel, law in zip(axes[0], LAWS, strict=True):
        points = rows[rows["law"] == law]
        for _, run in points.groupby("run"):
            panel.plot(run["flops"], run["residual"], "o", color=LAW_COLOR[law], ms=3)
        panel.axhline(0, color="#888888", lw=0.6)
        panel.set(xscale="log", xlabel=FLOPS_LABEL, ylabel="residual (ln)")
        panel.set_title(LAW_LABEL[law], loc="left")
    return figure


def all_laws(tables: StudyTables) -> pd.DataFrame:
    """Exponents, intervals and verdicts of all noise scales."""
    picked = tables.fits[tables.fits["law"].isin(LAWS)]
    wide = picked.pivot_table(
        index="sigma", columns="law", values=["alpha", "alpha_low", "alpha_high", "r2"], sort=False
    )
    wide.columns = [f"{column[0]} {column[1]}" for column in wide.columns.to_flat_index()]
    decided: dict[Any, str] = dict(
        zip(tables.verdicts["sigma"], tables.verdicts["verdict"], strict=True)
    )
    wide["verdict"] = [decided.get(s, "") for s in wide.index]
    order = np.argsort([np.inf if s == "total" else float(s) for s in wide.index])
    return wide.iloc[order]
