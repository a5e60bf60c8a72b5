"""What all figures share: size, type, colour, ticks, legend, letters. docs/figures.md says why."""

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
)
from PIL import Image

from jstar.records import write_atomically

COLUMN, PAGE = 3.35, 6.9  # inches: one column, the full page

# Okabe & Ito's palette, told apart by every common colour vision.
LAW_COLOR = {"raw": "#D55E00", "corrected": "#0072B2", "free": "#009E73"}
LAW_LABEL = {
    "raw": r"raw  $J=\beta F^{\alpha}$",
    "corrected": r"corrected  $J-J^*=\beta F^{\alpha}$",
    "free": r"free  $J=J_0+\beta F^{\alpha}$",
}
# A verdict and what a floor says of J* look alike where they mean the same.
VERDICT_STYLE: dict[str, dict[str, Any]] = {
    "corrected": {"color": LAW_COLOR["corrected"], "marker": "o"},
    "above": {"color": LAW_COLOR["free"], "marker": "^"},
    "raw": {"color": LAW_COLOR["raw"], "marker": "v"},
    "undecided": {"color": "#777777", "marker": "o", "mfc": "white"},
}
OPTIMAL_COLOR = "#000000"
NAMED = 12  # models in a legend, at most
ONE_LOSS = "one loss, no noise scales"
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
    "legend.handlelength": 1.4,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
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


MARKERS = "osD^v<>Pph*X"


def variant_styles(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each training variant: told apart by either."""
    palette = sns.color_palette("colorblind", n_colors=10)
    colors = [palette[k] for k in (0, 1, 2, 3, 4, 9, 5, 7)]  # without the two pale ones
    return {
        model: {"color": colors[k % len(colors)], "marker": MARKERS[k % len(MARKERS)]}
        for k, model in enumerate(models)
    }


def legend(figure: Figure, *rows: Sequence[Artist]) -> None:
    """The figure's legend, above its panels: each of `rows` as wide as its own entries.

    A row that is too wide is wrapped into lines of the same number of entries.
    """
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    left, low, width, height = engine.get()["rect"]
    top = 1 - 0.03 / figure.get_figheight()
    for row in rows:
        drawn = _legend_row(figure, row, top)
        top -= drawn.get_window_extent().height / figure.bbox.height
    engine.set(rect=(left, low, width, min(height, top - low)))


def _legend_row(figure: Figure, row: Sequence[Artist], top: float) -> Legend:
    """One row of a figure's legend, in as few lines as hold it; below a heading nothing stands."""
    heading, entries = (row[:1], row[1:]) if _is_heading(row[0]) else ([], row)
    blank = Line2D([], [], ls="", label=" ")
    for lines in range(1, len(entries) + 1):
        many = math.ceil(len(entries) / lines)
        filled = [*entries, *[blank] * (many * lines - len(entries))]
        columns = [[filled[k + many * line] for line in range(lines)] for k in range(many)]
        if heading:
            columns.insert(0, [*heading, *[blank] * (lines - 1)])
        drawn = figure.legend(
            # Matplotlib fills a legend column by column.
            handles=[entry for column in columns for entry in column], ncols=len(columns),
            loc="upper left", bbox_to_anchor=(0, top), borderaxespad=0, borderpad=0.25,
        )  # fmt: skip
        if many == 1 or drawn.get_window_extent().width < 0.99 * figure.bbox.width:
            break
        drawn.remove()
    return drawn


def _is_heading(entry: Artist) -> bool:
    """Whether a legend's entry is a word alone."""
    return isinstance(entry, Line2D) and {entry.get_linestyle(), entry.get_marker()} == {"None"}


def panel_legend(panel: Axes, title: str, handles: Sequence[Artist]) -> None:
    """A legend above one panel, where the panels of a figure have nothing in common."""
    panel.legend(handles=handles, title=title, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2,
                 borderaxespad=0, alignment="left", title_fontsize=8.5)  # fmt: skip


def variant_legend(figure: Figure, models: Sequence[str], *more: Line2D) -> None:
    """Legend of the variants above the panels."""
    styles = variant_styles(models)
    legend(figure, [*(Line2D([], [], ms=3, lw=1, label=m, **styles[m]) for m in models), *more])


def parameters_label(count: float) -> str:
    """12345 -> '12k', 1.2e8 -> '120M', 1.46e9 -> '1.46B'."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def panel_title(axes: Axes, text: str, fontsize: float = 8.5) -> Text:
    """A panel's title above its left edge."""
    return axes.set_title(text, loc="left", pad=3, fontsize=fontsize)


def letter(panels: Sequence[Axes]) -> None:
    """Bold a, b, ... before the titles of panels that show different things."""
    for name, panel in zip("abcdefgh", panels, strict=False):
        panel_title(panel, rf"$\mathbf{{{name}}}$  {panel.get_title(loc='left')}")


def note(axes: Axes, text: str) -> None:
    """In a panel that has nothing to draw: why."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#777777",
              style="italic", fontsize=7)  # fmt: skip
    axes.tick_params(axis="y", which="both", left=False, labelleft=False)


def label_rows(figure: Figure, axes: Any, labels: Sequence[str]) -> None:
    """Label the rows of panels, all labels in one line."""
    for row, label in enumerate(labels):
        axes[row, 0].set_ylabel(label)
    figure.align_ylabels(axes[:, 0])


# First digits of the labels of a log axis, from many to few.
LOG_DIGITS = ((1, 1.5, 2, 3, 4, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
MINOR_DECADES = 6  # with more of them, ticks between the decades would be a grey bar


def is_short(value: float) -> bool:
    """Whether a number is short without a power of ten."""
    return 1e-3 <= abs(value) < 1e4


def short_number(value: float, powers: bool = False) -> str:
    """0.0235 -> '0.0235', 0.00002 -> 2x10^-5; of `powers`, 0.01 -> 10^-2."""
    if value == 0 or (is_short(value) and not powers):
        return f"{value:g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    number = f"{float(mantissa):g}"
    power = rf"10^{{{int(exponent)}}}"
    return f"${power}$" if number == "1" else rf"${number}\times{power}$"


def _decades(low: float, high: float) -> range:
    return range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values on a log axis from low to high."""
    if high / low <= 3:
        ticks = list(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        return [float(t) for t in ticks if low <= t <= high]
    for digits in LOG_DIGITS:
        ticks = [
            t for d in _decades(low, high) for m in digits if low <= (t := m * 10.0**d) <= high
        ]
        if len(ticks) <= count + 1:
            return ticks
    return ticks[:: math.ceil(len(ticks) / (count + 1))]


def log_ticks(
    axes: Axes,
    low: float,
    high: float,
    count: int = 4,
    along: str = "y",
    text: Callable[[float], str] | None = None,
) -> None:
    """Set a log axis (x or y) from low to high with about `count` labels, as short as they can be.

    Over less than a decade Matplotlib labels every minor tick as 2.35 x 10^-1; a plain 0.235 at a
    few round values is what a reader wants. Ticks without labels show that the axis is a log axis.
    """
    axes.set(**{f"{along}scale": "log", f"{along}lim": (low, high)})
    axis = axes.xaxis if along == "x" else axes.yaxis
    ticks = round_ticks(low, high, count)
    unlabelled: list[float] = []
    if high / low > 3:
        decades = _decades(low, high)
        between = range(1, 10) if len(decades) <= MINOR_DECADES else (1,)
        unlabelled = [t for d in decades for m in between if low <= (t := m * 10.0**d) <= high]
    # The decades of one axis are all plain or all powers.
    powers = not all(map(is_short, ticks)) and all(
        f"{t:.9e}".startswith("1.000000000") for t in ticks
    )
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(FixedLocator(unlabelled))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: text(value) if text else short_number(value, powers))
    )


def sigma_axis(panel: Axes) -> None:
    """Log x axis of noise scales as wide as it is: 0.1, 0.3, 1 ..."""
    panel.set(xscale="log", xlabel=SIGMA_LABEL)
    log_ticks(panel, *panel.get_xlim(), along="x")


def images_ticks(axes: Axes, low: float, high: float, count: int = 3) -> None:
    """Log x axis of images seen from low to high: 5k, 10k, 20k ..."""
    log_ticks(axes, low / 1.1, high * 1.1, count, "x", parameters_label)


def model_labels(models: Sequence[str], params: dict[str, int]) -> dict[str, str]:
    """Number of parameters of each model; their names where sizes are the same."""
    sizes = {m: parameters_label(params[m]) for m in models}
    return sizes if len(set(sizes.values())) == len(sizes) else {m: m for m in models}


def size_handles(models: Sequence[str], params: dict[str, int], **line: Any) -> list[Line2D]:
    """Legend entries of the models after what they are called; of many, a few.

    Their colour, with the number of parameters, or the name where sizes are the same.
    """
    colors, labels = size_colors(models), model_labels(models, params)
    last = len(models) - 1
    named = sorted({round(k * last / (NAMED - 1)) for k in range(NAMED)}) if last >= NAMED else None
    shown = [models[k] for k in named] if named else models
    kind = "models" if labels[models[0]] == models[0] else "parameters"
    heading = Line2D([], [], ls="", label=kind)
    return [heading, *(Line2D([], [], color=colors[m], label=labels[m], **line) for m in shown)]


def save(pages: Sequence[Figure], stem: Path) -> list[Path]:
    """Write `stem`.pdf (vector) and `stem`.png (300 dpi, pages below one another), whole or not.

    No dates: the same tables give the same bytes.
    """

    def pdf(path: Path) -> None:
        with PdfPages(path, metadata={"CreationDate": None}) as file:
            for page in pages:
                file.savefig(page)

    def png(path: Path) -> None:
        rasters = []
        for page in pages:
            memory = BytesIO()
            page.savefig(memory, format="png", pil_kwargs={"compress_level": 0})
            rasters.append(Image.open(memory).convert("RGB"))
        whole = Image.new(
            "RGB", (max(r.width for r in rasters), sum(r.height for r in rasters)), "white"
        )
        top = 0
        for raster in rasters:
            whole.paste(raster, (0, top))
            top += raster.height
        whole.save(path, format="png", dpi=(RC["savefig.dpi"], RC["savefig.dpi"]))

    for page in pages:  # the layout is found once, not once a file
        page.draw_without_rendering()
    files = [stem.with_suffix(".pdf"), stem.with_suffix(".png")]
    # With any layout engine a page is drawn twice for every file, and savefig brings it back.
    with mpl.rc_context({"figure.constrained_layout.use": False, "figure.autolayout": False}):
        for page in pages:
            page.set_layout_engine(None)
        for file, write in zip(files, (pdf, png), strict=True):
            write_atomically(file, write)
    for page in pages:
        plt.close(page)
    return files
