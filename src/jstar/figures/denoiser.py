"""One denoiser diagnosed: its loss, the floor, the gap and where the gap counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from jstar.figures.style import (
    LAW_COLOR,
    OPTIMAL_COLOR,
    PAGE,
    legend,
    letter,
    log_ticks,
    new_figure,
    note,
    panel_title,
    save,
    sigma_axis,
    variant_styles,
)

Floats = NDArray[np.float64]

LOSS_COLOR, GAP_COLOR, MEAN_COLOR = LAW_COLOR["raw"], LAW_COLOR["corrected"], "#777777"
HELD_OUT: dict[str, Any] = {"marker": "o", "color": LOSS_COLOR, "mfc": "none", "ms": 5, "mew": 0.8}
DASHED = (0, (3, 1.5))
WEAK: dict[str, Any] = {"color": LOSS_COLOR, "alpha": 0.13, "lw": 0}
DECADES = 6  # of losses that are shown, at most
LEAST_RATIO = 1e-2  # of a loss to the best that cannot memorise, at least


def draw_frame(frame: pd.DataFrame, beaten_S: NDArray[np.bool_], stem: Path) -> list[Path]:
    """Write `stem`.pdf and .png of a diagnosis' table, and return both.

    beaten_S: noise scales at which a denoiser that cannot memorise does better.
    """
    figure, axes = new_figure(1, 3, PAGE, 2.6)
    _losses(axes[0, 0], frame)
    _beside(axes[0, 1], frame)
    _harm(axes[0, 2], frame)
    for panel in axes[0]:
        panel.set_xscale("log")
        _weak(panel, frame["sigma"].to_numpy(), beaten_S)
        sigma_axis(panel)
    letter(axes[0])
    lines: list[Artist] = [
        Line2D([], [], color=LOSS_COLOR, marker="o", ms=2.4, label=r"loss $J_\sigma$"),
        Line2D([], [], color=OPTIMAL_COLOR, label=r"optimal loss $J^*_\sigma$"),
        Line2D([], [], color=GAP_COLOR, marker="o", ms=2.4, label=r"gap $J_\sigma-J^*_\sigma$"),
        Line2D([], [], color=MEAN_COLOR, ls=(0, (1, 1.5)), label="mean image"),
        Line2D([], [], color=MEAN_COLOR, label="best that cannot memorise"),
    ]
    if frame["held_out"].notna().any():
        lines.append(Line2D([], [], ls="", label="held-out loss", **HELD_OUT))
    counts: list[Artist] = [
        Line2D([], [], color=GAP_COLOR, label=r"gap in samples (gap / $\sigma^2$)"),
        Line2D([], [], color=GAP_COLOR, ls=DASHED, label="gap in the training loss"),
    ]
    if beaten_S.any():
        counts.insert(0, Patch(label="weak: one that cannot memorise is better", **WEAK))
    legend(figure, lines, counts)
    return save([figure], stem)


def draw_side_by_side(
    denoisers: list[tuple[str, pd.DataFrame]], pairs: pd.DataFrame, stem: Path
) -> list[Path]:
    """Write `stem`.pdf and .png: the gaps of several denoisers, and each against the first's.

    denoisers: names with tables of `draw_frame`; pairs: sigma, other, gap_first, difference,
    difference_se.
    """
    figure, axes = new_figure(1, 2, PAGE, 2.7)
    lines, looks = [], variant_styles([name for name, _ in denoisers])
    for name, frame in denoisers:
        look = {**looks[name], "ms": 2.8}
        bars = {**look, "elinewidth": 0.7, "ls": "-"}
        axes[0, 0].errorbar(frame["sigma"], frame["gap"], 2 * frame["gap_se"], **bars)
        lines.append(Line2D([], [], label=name, **look))
        rows = pairs[pairs["other"] == name]  # of the first there are none
        share, error = (rows[c] / rows["gap_first"] for c in ("difference", "difference_se"))
        axes[0, 1].errorbar(rows["sigma"], share, 2 * error, **bars)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel(r"gap $J_\sigma-J^*_\sigma$")
    panel_title(axes[0, 0], "gap")
    axes[0, 1].axhline(0, color=MEAN_COLOR, lw=0.9)
    axes[0, 1].set_ylabel("difference / gap of the first")
    panel_title(axes[0, 1], "same draws, against the first; 2 standard errors")
    for panel in axes[0]:
        panel.set_xscale("log")
        sigma_axis(panel)
    letter(axes[0])
    legend(figure, lines)
    return save([figure], stem)


def _losses(panel: Axes, frame: pd.DataFrame) -> None:
    sigma = frame["sigma"]
    panel.axhline(frame["mean_image"].iloc[0], color=MEAN_COLOR, lw=0.9, ls=(0, (1, 1.5)))
    panel.errorbar(sigma, frame["loss"], 2 * frame["loss_se"], fmt="o-", color=LOSS_COLOR, ms=2.4,
                   elinewidth=0.7)  # fmt: skip
    panel.plot(sigma, frame["held_out"], ls="", **HELD_OUT)
    panel.plot(sigma, frame["upper"], color=MEAN_COLOR)
    panel.fill_between(sigma, frame["floor_low"], frame["floor_high"], color=OPTIMAL_COLOR,
                       alpha=0.25, lw=0)  # fmt: skip
    panel.plot(sigma, frame["optimal"].where(frame["optimal"] > 0), color=OPTIMAL_COLOR)
    panel.errorbar(sigma, frame["gap"], 2 * frame["gap_se"], fmt="o-", color=GAP_COLOR, ms=2.4,
                   lw=1.0, elinewidth=0.7)  # fmt: skip
    top = 2 * max(frame["loss"].max(), frame["mean_image"].max())
    shown = frame["gap"][frame["gap"] > 0]
    low = 0.5 * float(shown.min()) if len(shown) else top
    log_ticks(panel, max(low, top / 10**DECADES), top)
    panel.set_ylabel("mean squared error per dimension")
    panel_title(panel, "loss, floor and gap")


def _beside(panel: Axes, frame: pd.DataFrame) -> None:
    """Losses over that of the best denoiser tried that cannot memorise: is it good?"""
    sigma, upper = frame["sigma"], frame["upper"]
    panel_title(panel, "is it good? below 1: yes")
    if upper.isna().all():
        note(panel, "nothing to compare with")
        return
    ratio, held_out = frame["loss"] / upper, frame["held_out"] / upper
    panel.axhline(1, color=MEAN_COLOR)
    panel.errorbar(sigma, ratio, 2 * frame["loss_se"] / upper, fmt="o-", color=LOSS_COLOR, ms=2.4,
                   elinewidth=0.7)  # fmt: skip
    panel.plot(sigma, held_out, ls="", **HELD_OUT)
    panel.plot(sigma, (frame["optimal"] / upper).where(frame["optimal"] > 0), color=OPTIMAL_COLOR)
    seen = np.concatenate([ratio, held_out, [0.5, 1.0]])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    log_ticks(panel, max(0.6 * seen.min(), LEAST_RATIO), 1.7 * seen.max())
    panel.set_ylabel("loss / best that cannot memorise")


def _weak(panel: Axes, sigma_S: Floats, beaten_S: NDArray[np.bool_]) -> None:
    """Shade the noise scales at which the denoiser is beaten, each to halfway to the next."""
    between = np.sqrt(sigma_S[1:] * sigma_S[:-1])
    edges = np.concatenate([sigma_S[:1], between, sigma_S[-1:]])
    for k in np.flatnonzero(beaten_S):
        panel.axvspan(edges[k], edges[k + 1], zorder=0, **WEAK)


def _harm(panel: Axes, frame: pd.DataFrame) -> None:
    """Density over ln sigma of the bound on the sampling error, and of the weighted gap."""
    width = np.gradient(np.log(frame["sigma"].to_numpy()))
    trained = (frame["weight"] * frame["gap"]).to_numpy()
    trained = trained / max(trained.sum(), 1e-300)
    panel.plot(frame["sigma"], frame["harm"] / width, color=GAP_COLOR)
    panel.plot(frame["sigma"], trained / width, color=GAP_COLOR, ls=DASHED)
    panel.fill_between(frame["sigma"], 0, frame["harm"] / width, color=GAP_COLOR, alpha=0.2, lw=0)
    panel.set(ylim=(0, None), ylabel=r"share per unit of $\ln\sigma$")
    panel_title(panel, "where the gap counts")
