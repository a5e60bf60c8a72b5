"""Figure: generated images, model by model and over the training of the largest."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jstar.figures.style import PAGE, new_figure, parameters_label

ACROSS = 20  # images in a row, at most
GUTTER = 1  # pixels between images


@dataclass(frozen=True)
class Drawn:
    """First images of one snapshot, in the data scale [N, C, H, W], and how good all of them are.

    fid is not a number for images of the data themselves.
    """

    label: str
    images_NCHW: NDArray[np.float32]
    fid: float = float("nan")


def row_label(model: str, params: int, images: int) -> str:
    """`d4: 80.1k parameters, 140k images seen`."""
    size, seen = parameters_label(params), parameters_label(images)
    return f"{model}: {size} parameters, {seen} images seen"


def draw_samples(rows: list[Drawn]) -> Figure:
    """One strip of images a row, the data first; images of a column start from the same noise."""
    shape = rows[0].images_NCHW.shape[1:]
    across = max(6, min(ACROSS, 2 * ACROSS * 8 // shape[2])) if shape[2] > 16 else ACROSS
    across = min(across, *(len(row.images_NCHW) for row in rows))
    # Black and white are those of the data; what a sampler overshoots is cut.
    low, high = float(rows[0].images_NCHW.min()), float(rows[0].images_NCHW.max())
    strip = PAGE / across * shape[1] / shape[2]
    figure, axes = new_figure(len(rows), 1, PAGE, len(rows) * (strip + 0.19) + 0.05)
    for panel, row in zip(axes[:, 0], rows, strict=True):
        shown = (row.images_NCHW[:across] - low) / max(high - low, 1e-12)
        _strip(panel, shown.clip(0, 1))
        fid = f",  FID {row.fid:.3g}" if np.isfinite(row.fid) else ""
        panel.set_title(row.label + fid, loc="left", pad=2, fontsize=7.5)
    figure.set_layout_engine("constrained", h_pad=0.015, w_pad=0.04)
    return figure


def _strip(panel: Axes, images_NCHW: NDArray[np.floating]) -> None:
    """Images side by side; of more than three channels (latents) the first three."""
    count, channels, height, width = images_NCHW.shape
    colours = 3 if channels >= 3 else 1
    strip = np.ones((height, count * (width + GUTTER) - GUTTER, colours))
    for k, image in enumerate(images_NCHW):
        left = k * (width + GUTTER)
        strip[:, left : left + width] = image[:colours].transpose(1, 2, 0)
    panel.imshow(strip.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    panel.set_axis_off()
