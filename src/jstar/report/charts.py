"""The plots of the page that move: exponents and floors over sigma, one noise scale closely.

A trace's `meta` names the law that it shows; the page's toggles hide by it.
"""

import json
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from plotly import graph_objects as go

from jstar.constants import TOTAL
from jstar.figures.floors import STYLE, floors_frame
from jstar.figures.joint import joint_approach, joint_law, joint_residuals, optimal_line, verdict_of
from jstar.figures.style import (
    LAW_COLOR,
    VERDICT_STYLE,
    is_short,
    model_labels,
    round_ticks,
    size_colors,
)
from jstar.figures.tables import StudyTables
from jstar.scaling.approaches import NOT_RESOLVED
from jstar.scaling.joint_law import CONVERGED

LAWS = ("raw", "corrected", "free", "joint")
COLOR = {**LAW_COLOR, "joint": "#333333"}
FLOPS, SIGMA = "training compute F (FLOPs)", "noise scale σ"
SYMBOL = {"o": "circle", "^": "triangle-up", "v": "triangle-down"}
DIGITS = 5
NOTHING = "nothing that may be shown"


def chart(traces: list[Any], across: dict[str, Any], up: dict[str, Any]) -> dict[str, Any]:
    """Traces and axes as plain data: {data, layout}."""
    axis = {"ticks": "outside", "showline": True, "linecolor": "#444", "zeroline": False,
            "gridcolor": "#eee", "exponentformat": "power", "nticks": 6}  # fmt: skip
    figure = go.Figure(traces)
    figure.update_layout(
        template="none", showlegend=False, dragmode=False, hovermode="closest",
        margin={"l": 62, "r": 10, "t": 8, "b": 46}, font={"size": 12, "family": "inherit"},
        xaxis={**axis, **across}, yaxis={**axis, **up},
    )  # fmt: skip
    if not any(len(trace.x) for trace in traces):
        figure.add_annotation(
            text=NOTHING, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5
        )
    plain: dict[str, Any] = json.loads(figure.to_json())
    return {"data": plain["data"], "layout": plain["layout"]}


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """A log axis a little wider than from low to high, with a few round values."""
    room = 0.04 * np.log10(high / low) + 0.01
    ends = [np.log10(low) - room, np.log10(high) + room]
    ticks = round_ticks(10 ** ends[0], 10 ** ends[1])
    text = [f"{t:g}" if is_short(t) else _power(t) for t in ticks]
    return {"type": "log", "title": {"text": title}, "range": ends, "tickvals": ticks,
            "ticktext": text}  # fmt: skip


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    factor = "" if float(mantissa) == 1 else f"{float(mantissa):g}·"
    return f"{factor}10<sup>{int(exponent)}</sup>"


def size_chips(tables: StudyTables) -> list[tuple[str, str]]:
    """(colour, label) of every size, for the legend of all plots."""
    labels = model_labels(tables.models, tables.params)
    return [(to_hex(color), labels[model]) for model, color in size_colors(tables.models).items()]


def exponents_chart(tables: StudyTables) -> dict[str, Any]:
    """alpha of every law over sigma where it may be quoted; open where it is not resolved."""
    traces = []
    sigmas = [sigma for sigma in tables.scales if sigma != TOTAL]
    for law, shift in zip(LAWS, (0.97, 0.99, 1.01, 1.03), strict=True):
        rows = [joint_approach(tables, s) if law == "joint" else tables.fit(s, law) for s in sigmas]
        frame = pd.DataFrame(rows).assign(sigma=sigmas)
        frame = frame[frame["alpha"].notna() & frame["status"].isin([CONVERGED, NOT_RESOLVED])]
        text = [f"{law}, σ = {s:.4g}: α = {a:.3f} [{low:.3f}, {high:.3f}], {status}"
                for s, a, low, high, status in zip(
                    frame["sigma"], frame["alpha"], frame["alpha_low"], frame["alpha_high"],
                    frame["status"], strict=True)]  # fmt: skip
        symbols = ["circle" if status == CONVERGED else "circle-open" for status in frame["status"]]
        traces.append(go.Scatter(
            x=_few(shift * frame["sigma"]), y=_few(frame["alpha"]), mode="markers", meta=law,
            marker={"color": COLOR[law], "symbol": symbols, "size": 7}, text=text,
            hoverinfo="text", error_y=_bars(frame["alpha"], frame["alpha_low"], frame["alpha_high"],
                                            COLOR[law]),
        ))  # fmt: skip
    joint = tables.approaches.loc[tables.approaches["approach"] == "joint", "alpha_low"].dropna()
    low = 1.3 * min([-0.3, *joint])
    return chart(traces, _sigma_axis(tables),
                 {"title": {"text": "exponent α"}, "range": [low, 0.25]})  # fmt: skip


def floors_chart(tables: StudyTables) -> dict[str, Any]:
    """(fitted floor - J*) / smallest gap: 0 is J*, 1 the lowest loss."""
    frame = floors_frame(tables)
    frame = frame[frame["sigma"].astype(str) != TOTAL]
    frame = frame[np.isfinite(frame["floor"].astype(float) + frame["optimal"].astype(float))]
    traces = []
    for says, style in STYLE.items():
        mine = frame[frame["says"] == says]
        middle, low, high = ((mine[n] - mine["optimal"]) / mine["gap"]
                             for n in ("floor", "low", "high"))  # fmt: skip
        told = zip(mine["sigma"], mine["floor"], mine["optimal"], strict=True)
        text = [f"σ = {float(s):.4g}: floor {f:.4g}, J* = {o:.4g}: {says}" for s, f, o in told]
        symbol = SYMBOL[style["marker"]] + ("-open" if style.get("mfc") else "")
        traces.append(go.Scatter(
            x=_few(mine["sigma"]), y=_few(middle.clip(-2, 1.5)), mode="markers", text=text,
            hoverinfo="text", marker={"color": style["color"], "symbol": symbol, "size": 8},
            error_y=_bars(middle.clip(-2, 1.5), low, high, style["color"]), name=says,
        ))  # fmt: skip
    up = {"title": {"text": "(floor − J*) / smallest gap"}, "range": [-2.1, 1.6]}
    figure = chart(traces, _sigma_axis(tables), up)
    figure["layout"]["shapes"] = [_level(0, "#000", "dash"), _level(1, "#999", "solid")]
    return figure


def scale_charts(tables: StudyTables, sigma: float | str) -> dict[str, Any]:
    """loss, gap, residuals and profile of one noise scale."""
    return {"loss": _curves(tables, sigma, "loss"), "gap": _curves(tables, sigma, "gap"),
            "residuals": _residuals(tables, sigma), "profile": _profile(tables, sigma)}  # fmt: skip


def _curves(tables: StudyTables, sigma: float | str, column: str) -> dict[str, Any]:
    rows = tables.at("frontier", sigma)
    traces = _runs(tables, rows[rows["fitted"]], column)
    traces += _runs(tables, rows[~rows["fitted"]], column, dash="dot")
    law = joint_law(tables, sigma)
    if law is not None and law["status"] == CONVERGED:
        line = optimal_line(tables, sigma, law)
        line = line[line[column] > 0]
        color = VERDICT_STYLE[verdict_of(tables, sigma)]["color"]
        traces.append(_line(line["flops"], line[column], color, "joint law", "joint", width=5,
                            opacity=0.5))  # fmt: skip
    predictions = tables.at("predictions", sigma)
    for name in LAWS[:3]:
        part = predictions[(predictions["law"] == name) & (predictions[column] > 0)]
        part = part.sort_values("flops")
        if len(part):
            dash = "solid" if name == "corrected" else "dash"
            traces.append(_line(part["flops"], part[column], COLOR[name], f"envelope: {name}", name,
                                dash=dash, width=2))  # fmt: skip
    optimal = float(tables.at("verdicts", sigma)["optimal"].iloc[0])
    seen = rows.loc[rows[column] > 0, column]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (1.0, 10.0)
    if column == "loss" and optimal > 0.3 * low:
        ends = [rows["flops"].min(), rows["flops"].max()]
        traces.append(_line(ends, [optimal] * 2, "#000", "J*", None, dash="dash", width=1.5))
        low = min(low, optimal)
    title = "loss J" if column == "loss" else "loss gap J − J*"
    return chart(traces, _flops_axis(tables), log_axis(title, low, high))


def _sigma_axis(tables: StudyTables) -> dict[str, Any]:
    sigmas = tables.sigmas if len(tables.sigmas) else np.array([0.1, 1.0])
    return log_axis(SIGMA, 0.95 * float(sigmas[0]), 1.05 * float(sigmas[-1]))


def _flops_axis(tables: StudyTables) -> dict[str, Any]:
    flops = tables.frontier["flops"]
    return log_axis(FLOPS, float(flops.min()), float(flops.max()))


def _runs(
    tables: StudyTables, rows: pd.DataFrame, column: str, factor: float = 1, dash: str = "solid"
) -> list[Any]:
    """Every run in its size's colour; dotted is what comes before the onset."""
    colors, labels = size_colors(tables.models), model_labels(tables.models, tables.params)
    traces = []
    for run, part in rows.groupby("run"):
        part, model = part.sort_values("flops"), str(part["model"].iloc[0])
        traces.append(go.Scatter(
            x=_few(part["flops"]), y=_few(factor * part[column]), mode="lines+markers",
            name=f"{labels[model]} parameters, {run}", marker={"size": 3},
            line={"color": to_hex(colors[model]), "width": 1.4, "dash": dash},
        ))  # fmt: skip
    return traces


def _residuals(tables: StudyTables, sigma: float | str) -> dict[str, Any]:
    law = joint_law(tables, sigma)
    traces = [] if law is None else _runs(tables, joint_residuals(tables, sigma, law), "residual",
                                          100)  # fmt: skip
    up = {"title": {"text": "residual of ln J (%)"}}
    figure = chart(traces, _flops_axis(tables), up)
    figure["layout"]["shapes"] = [_level(0, "#888", "solid")]
    return figure


def _profile(tables: StudyTables, sigma: float | str) -> dict[str, Any]:
    rows = tables.at("profile", sigma)
    traces = [_line(part["alpha"], part["rise"], COLOR[str(law)], str(law), str(law))
              for law, part in rows.sort_values("alpha").groupby("law")]  # fmt: skip
    figure = chart(traces, {"title": {"text": "exponent α of the envelope's law"}},
                   {"title": {"text": "rise of the deviance"}, "range": [0, 4.2]})  # fmt: skip
    figure["layout"]["shapes"] = [_level(1, "#888", "dash")]
    return figure


def _line(x: Any, y: Any, color: str, name: str, law: str | None, **style: Any) -> Any:
    opacity = style.pop("opacity", 1)
    return go.Scatter(x=_few(x), y=_few(y), mode="lines", name=name, meta=law, opacity=opacity,
                      line={"color": color, "width": 1.8, **style})  # fmt: skip


def _bars(middle: Any, low: Any, high: Any, color: str) -> dict[str, Any]:
    """Error bars from an estimate to the ends of its interval."""
    return {"type": "data", "symmetric": False, "array": _few(np.clip(high - middle, 0, None)),
            "arrayminus": _few(np.clip(middle - low, 0, None)), "color": color, "thickness": 1.2,
            "width": 0}  # fmt: skip


def _level(y: float, color: str, dash: str) -> dict[str, Any]:
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y,
            "line": {"color": color, "dash": dash, "width": 1}}  # fmt: skip


def _few(values: Any) -> list[float | None]:
    """Plain numbers of a few digits; None where there is none."""
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None
            for v in np.asarray(values, dtype=float)]  # fmt: skip
