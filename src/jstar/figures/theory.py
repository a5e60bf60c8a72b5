"""Figure: the sampling bound, its parts, the steps it recommends, and measured quality."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from jstar.figures.style import (
    PAGE,
    images_ticks,
    legend,
    letter,
    log_ticks,
    new_figure,
    note,
    panel_title,
    size_colors,
    size_handles,
)

# Okabe & Ito again; the total is black, its parts are not.
PART_COLOR = {"total": "#000000", "score": "#D55E00", "discretisation": "#0072B2"}
PART_LABEL = {"total": "total", "score": "$E_S$", "discretisation": "$E_D$"}
KIND_LINE: dict[str, Any] = {"polynomial": (0, (3, 1.5)), "exponential": "-"}
KIND_LABEL = {"polynomial": r"polynomial, $\rho=7$", "exponential": "exponential"}
SAMPLER_LABEL = {"sde": "score frozen (sde)", "ancestral": "denoiser frozen (ancestral)"}
STEPS = 64  # of the crossover: enough that a good network is limited by its gap
TRIAL_COLOR = {"polynomial": "#D55E00", "exponential": "#0072B2"}
MARKS = {"sde": "s", "ancestral": "o"}
BOUND_LABEL = "KL bound (nats an image)"


def draw_sampling_theory(
    parts: pd.DataFrame, chosen: pd.DataFrame, trials: pd.DataFrame | None
) -> tuple[Figure, dict[str, Any]]:
    """Two parts-over-steps panels, the best rho over training, and bound against measured FID.

    parts, chosen, trials: bounds.csv, steps.csv and theory_quality.csv.
    """
    figure, axes = new_figure(2, 2, PAGE, 4.7)
    largest = parts.sort_values(["params", "flops"]).iloc[-1]
    network = parts[(parts["run"] == largest["run"]) & (parts["snapshot"] == largest["snapshot"])]
    for panel, sampler in zip(axes[0], SAMPLER_LABEL, strict=True):
        _parts_panel(panel, network[network["sampler"] == sampler])
        panel_title(panel, f"{SAMPLER_LABEL[sampler]}: {largest['run']}")
    axes[0, 1].set_ylabel("")
    sizes = _crossover_panel(axes[1, 0], parts, chosen)
    marks = _quality_panel(axes[1, 1], trials)
    handles = [Line2D([], [], color=PART_COLOR[p], label=PART_LABEL[p]) for p in PART_COLOR]
    handles += [
        Line2D([], [], color="#444444", ls=KIND_LINE[k], label=KIND_LABEL[k]) for k in KIND_LINE
    ]
    legend(figure, *[row for row in (handles, sizes, marks) if row])
    letter(axes.ravel())
    best = chosen[(chosen["run"] == largest["run"]) & (chosen["snapshot"] == largest["snapshot"])]
    return figure, {
        "run": str(largest["run"]),
        "steps": STEPS,
        "best": best[["sampler", "steps", "spacing", "rho", "total"]].to_dict("records"),
    }


def _parts_panel(panel: Axes, rows: pd.DataFrame) -> None:
    for kind, style in KIND_LINE.items():
        line = rows[rows["spacing"] == kind]
        if kind == "polynomial":
            line = line[line["rho"] == 7]
        line = line.sort_values("steps")
        for part, color in PART_COLOR.items():
            panel.plot(line["steps"], line[part], color=color, ls=style,
                       lw=1.4 if part == "total" else 1.0)  # fmt: skip
    panel.set(xscale="log", yscale="log", xlabel="steps $N$", ylabel=BOUND_LABEL)
    log_ticks(panel, *panel.get_ylim())
    _step_ticks(panel, sorted(rows["steps"].unique()))


def _step_ticks(panel: Axes, steps: list[int]) -> None:
    panel.xaxis.set_major_locator(FixedLocator([float(n) for n in steps if n != 12]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticklabels([str(n) for n in steps if n != 12])


def _crossover_panel(panel: Axes, parts: pd.DataFrame, chosen: pd.DataFrame) -> list[Line2D]:
    """Bound with exponential steps over that with EDM's, as training goes on: the crossover."""
    rows = chosen[(chosen["steps"] == STEPS) & (chosen["sampler"] == "sde")]
    panel_title(panel, rf"crossover of the bound, sde, $N={STEPS}$")
    if rows["images"].isna().all():
        note(panel, "no training times in the tables")
        return []
    sizes = rows.drop_duplicates("model").sort_values("params")
    models = [str(m) for m in sizes["model"]]
    colors = size_colors(models)
    for _, run in rows.groupby("run"):
        run = run.sort_values("images")
        panel.plot(run["images"], run["exponential"] / run["edm"],
                   color=colors[str(run["model"].iloc[0])], lw=1)  # fmt: skip
    panel.axhline(1, color="#888888", lw=0.6, zorder=0)
    # Without a gap E_I and E_D are left, which no network changes.
    at_steps = parts[(parts["steps"] == STEPS) & (parts["sampler"] == "sde")]
    left = (
        (at_steps["initial"] + at_steps["discretisation"])
        .groupby([at_steps["spacing"], at_steps["rho"].fillna(0)])
        .first()
    )
    panel.axhline(left["exponential", 0] / left["polynomial", 7], color="black", lw=1, ls=":")
    images_ticks(panel, rows["images"].min(), rows["images"].max())
    panel.set(xlabel="images seen in training", ylabel=r"exponential / polynomial $\rho=7$")
    params = {str(m): int(p) for m, p in zip(sizes["model"], sizes["params"], strict=True)}
    perfect = Line2D([], [], color="black", lw=1, ls=":", label="no gap")
    return [*size_handles(models, params, lw=1), perfect]


def _quality_panel(panel: Axes, trials: pd.DataFrame | None) -> list[Line2D]:
    panel_title(panel, "bound and measured quality")
    if trials is None or trials.empty:
        note(panel, "no sampled trial has a bound")
        return []
    handles = []
    for (sampler, kind), rows in trials.groupby(["sampler", "spacing"]):
        color = TRIAL_COLOR.get(str(kind), "#009E73")
        style: dict[str, Any] = {
            "marker": MARKS[str(sampler)], "color": color, "ls": "", "ms": 3, "mew": 0.8,
            "mfc": "white" if sampler == "ancestral" else color,
        }  # fmt: skip
        reach = np.array([rows["fid"] - rows["fid_low"], rows["fid_high"] - rows["fid"]])
        panel.errorbar(rows["total"], rows["fid"], yerr=reach, elinewidth=0.7, **style)
        handles.append(Line2D([], [], label=f"{sampler}, {kind}", **style))
    log_ticks(panel, 0.85 * float(trials["fid_low"].clip(lower=0.5 * trials["fid"]).min()),
              1.1 * float(trials["fid_high"].max()))  # fmt: skip
    panel.set(xlabel=BOUND_LABEL, ylabel="FID")
    return handles
