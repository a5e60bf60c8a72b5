"""What the notebook inspect_fits calls: one noise scale at a time, tables and small figures."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jstar.constants import TOTAL
from jstar.figures.floors import floors_frame
from jstar.figures.joint import joint_in_numbers
from jstar.figures.panels import LAWS, choices_of, sensitivity_panel
from jstar.figures.scaling import chosen_scales, draw_columns
from jstar.figures.style import FLOPS_LABEL, LAW_COLOR, LAW_LABEL, PAGE, new_figure, note
from jstar.figures.tables import StudyTables, load_tables
from jstar.layout import Layout

# Of an exponent: name, columns of its ends, and where its bar lies below the profile.
INTERVALS = (
    ("headline", "alpha", -0.5),
    ("profile", "alpha_profile", -1.0),
    ("covariance", "alpha_covariance", -1.5),
)


def study_tables(layout: Layout) -> StudyTables:
    """The study's tables."""
    study = layout.study
    return load_tables(layout.fits, layout.curve, study.ema)


def default_sigma(tables: StudyTables) -> float | str:
    """A noise scale at which J* is about nine tenths of the best loss."""
    return chosen_scales(tables, 1)[0]


def laws(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """The three laws at one noise scale."""
    columns = ["law", "alpha", "alpha_low", "alpha_high", "beta", "offset", "r2", "r2_response",
               "aicc", "n", "status"]  # fmt: skip
    return tables.at("fits", sigma)[columns].set_index("law").T


def verdict(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """Whether a floor is needed and whether it is J*, with how often this design would err."""
    return tables.at("verdicts", sigma).set_index("sigma").T


def joint(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """The joint law under each floor, of the losses that are fitted and of the measured ones."""
    names = ("E", "a", "b", "alpha", "size_exponent")
    columns = [name + end for name in names for end in ("", "_low", "_high")]
    rows = tables.at("parametric", sigma).set_index(["of", "floor"])
    return rows[["status", *columns, "A", "B", "N0", "D0", "misfit", "aicc", "n"]].T


def floors(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """The freely fitted floor beside J*, and what it says of it."""
    rows = floors_frame(tables).set_index("sigma")
    return rows.loc[[sigma]].T


def curves(tables: StudyTables, sigma: float | str) -> Figure:
    """Loss and gap of every run, the joint law along its best sizes, and its residuals of ln J."""
    figure, axes = new_figure(1, 3, PAGE, 2.7, sharex=True)
    draw_columns(figure, axes.T, tables, [sigma])
    return figure


def residuals(tables: StudyTables, sigma: float | str) -> Figure:
    """ln(measured) - ln(law) of the frontier points, each law in its own response."""
    figure, axes = new_figure(1, 2, PAGE, 2.2, sharex=True)
    rows = tables.at("residuals", sigma)
    for panel, law in zip(axes[0], LAWS, strict=True):
        points = rows[rows["law"] == law]
        panel.set(xscale="log", xlabel=FLOPS_LABEL, ylabel="residual (ln)")
        panel.set_title(LAW_LABEL[law], loc="left")
        if points.empty:
            note(panel, str(tables.fit(sigma, law)["status"]))
            continue
        panel.plot(points["flops"], points["residual"], "o", color=LAW_COLOR[law], ms=3)
        panel.axhline(0, color="#888888", lw=0.6)
    return figure


def residual_tests(tables: StudyTables, sigma: float | str) -> pd.DataFrame:
    """Do the residuals show structure? p-values of their signs, curvature and a break."""
    columns = ["law", "runs_p", "durbin_watson", "curvature_p", "broken_p"]
    return tables.at("residual_tests", sigma)[columns].set_index("law").T


def profile(tables: StudyTables, sigma: float | str) -> Figure:
    """Profile likelihood of the exponent of every law, and its three intervals below."""
    figure, axes = new_figure(1, 3, PAGE, 2.4, sharey=True)
    rows = tables.at("profile", sigma)
    for panel, law in zip(axes[0], LAW_LABEL, strict=True):
        fit, curve = tables.fit(sigma, law), rows[rows["law"] == law]
        panel.set_title(LAW_LABEL[law], loc="left")
        panel.set_xlabel(r"exponent $\alpha$")
        if curve.empty:
            note(panel, str(fit["status"]))
            continue
        panel.plot(curve["alpha"], curve["rise"], color=LAW_COLOR[law])
        panel.axhline(1, color="#888888", lw=0.6, ls=(0, (4, 2)))
        for _, column, height in INTERVALS:
            ends = fit[f"{column}_low"], fit[f"{column}_high"]
            panel.plot(ends, [height, height], color=LAW_COLOR[law], lw=2.5, alpha=0.6)
        if fit["status"] != "converged":
            panel.annotate(str(fit["status"]), (0.5, 0.96), xycoords="axes fraction", ha="center",
                           va="top", fontsize=7, style="italic", color="#777777")  # fmt: skip
        panel.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    heights = {height: name for name, _, height in INTERVALS} | {k: str(k) for k in range(5)}
    axes[0, 0].set_yticks(list(heights), list(heights.values()))
    axes[0, 0].set(ylim=(-1.9, 4.2), ylabel="rise of the deviance")
    return figure


def sensitivity(tables: StudyTables, sigma: float | str) -> Figure:
    """The corrected exponent when one choice is made otherwise."""
    rows = tables.at("sensitivity", sigma)
    choices = choices_of(rows)
    figure, axes = new_figure(1, 1, 0.7 * PAGE, 1.0 + 0.17 * max(len(choices), 4))
    sensitivity_panel(axes[0, 0], rows, choices)
    axes[0, 0].set_xlabel(r"exponent $\alpha$ of the corrected law")
    return figure


def all_laws(tables: StudyTables) -> pd.DataFrame:
    """Exponents, intervals and verdicts of all noise scales."""
    picked = tables.fits[tables.fits["law"].isin(LAWS)]
    wide = picked.pivot_table(
        index="sigma", columns="law", values=["alpha", "alpha_low", "alpha_high"], sort=False
    )
    wide.columns = [f"{column[0]} {column[1]}" for column in wide.columns.to_flat_index()]
    decided: dict[Any, str] = dict(
        zip(tables.verdicts["sigma"], tables.verdicts["verdict"], strict=True)
    )
    wide.insert(0, "alpha joint", [joint_in_numbers(tables, s)["alpha"] for s in wide.index])
    wide["verdict"] = [decided.get(s, "") for s in wide.index]
    order = np.argsort([np.inf if s == TOTAL else float(s) for s in wide.index])
    return wide.iloc[order]
