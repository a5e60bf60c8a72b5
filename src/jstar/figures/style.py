"""Size, type and colour of every figure: readable at column width, safe for colour blindness."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from jstar.records import write_atomically

COLUMN, PAGE = 3.35, 6.9  # inches: one column, the full page

# Okabe & Ito's palette, told apart by every common colour vision.
LAW_COLOR = {"raw": "#D55E00", "corrected": "#0072B2", "free": "#009E73"}
LAW_LABEL = {
    "raw": r"raw  $J=\beta F^{\alpha}$",
    "corrected": r"corrected  $J-J^*=\beta F^{\alpha}$",
    "free": r"free  $J=J_0+\beta F^{\alpha}$",
}
OPTIMAL_COLOR = "#000000"
FLOPS_LABEL = "training compute $F$ (FLOPs)"
SIGMA_LABEL = r"noise scale $\sigma$"

RC: dict[str, Any] = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "Times New Roman", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # embedded TrueType: text stays text, as publishers ask
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
    "figure.dpi": 130,
    "savefig.dpi": 300,
}


def new_figure(
    rows: int, columns: int, width: float, height: float, **kwargs: Any
) -> tuple[Figure, Any]:
    """A figure in the house style; the axes are a 2-d array [rows, columns]."""
    for key, value in RC.items():
        mpl.rcParams[key] = value  # type: ignore[index]
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **kwargs)
    return figure, axes


def size_colors(models: Sequence[str]) -> dict[str, Any]:
    """One colour a size, light to dark with its rank in the ladder."""
    palette = sns.color_palette("viridis_r", n_colors=len(models) + 2)[1:-1]
    return dict(zip(models, palette, strict=True))


def parameters_label(count: float) -> str:
    """12345 -> '12k', 1.2e8 -> '120M', 1.46e9 -> '1.46B'."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def panel_title(axes: Axes, text: str) -> None:
    """A panel's title above its left edge."""
    axes.set_title(text, loc="left", pad=3)


def log_ticks(axes: Axes, low: float, high: float, count: int = 4) -> None:
    """Set a log y axis from low to high with about `count` labels, as short as they can be.

    Over less than a decade Matplotlib labels every minor tick as 2.35 x 10^-1; a plain 0.235 at a
    few round values is what a reader wants.
    """
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    if high / low > 10 ** (count / 2):
        axes.yaxis.set_major_locator(LogLocator(numticks=count + 1))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    nice = MaxNLocator(nbins=count + 1, steps=[1, 2, 2.5, 5, 10])
    ticks = [t for t in nice.tick_values(low, high) if low <= t <= high]
    if high / low > 4:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [t for d in decades for m in (1, 2, 5) if low <= (t := m * 10.0**d) <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_number(value)))


def _short_number(value: float) -> str:
    """0.0235 -> '0.0235', 0.00002 -> 2x10^-5."""
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    number = f"{float(mantissa):g}"
    power = rf"10^{{{int(exponent)}}}"
    return f"${power}$" if number == "1" else rf"${number}\times{power}$"


def size_handles(models: Sequence[str], params: dict[str, int], **line: Any) -> list[Line2D]:
    """Legend entries of the sizes: colour and number of parameters."""
    colors = size_colors(models)
    return [
        Line2D([], [], color=colors[m], label=parameters_label(params[m]), **line) for m in models
    ]


def save(figure: Figure, stem: Path) -> None:
    """Write `stem`.pdf (vector) and `stem`.png (300 dpi), whole or not at all."""
    for suffix in (".pdf", ".png"):
        # A fixed creation date: the same tables give the same bytes.
        metadata = {"CreationDate": None} if suffix == ".pdf" else {"Software": None}
        write_atomically(
            stem.with_suffix(suffix),
            lambda p, s=suffix, m=metadata: figure.savefig(p, format=s[1:], metadata=m),  # type: ignore[misc]
        )
    plt.close(figure)
