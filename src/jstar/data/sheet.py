"""A page of samples with their labels: the one look that shows wrong classes or channels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jstar.data.store import Dataset

ROWS, COLUMNS = 10, 12
CELL = 64  # pixels of an image, about
GUTTER, MARGIN, TEXT = 4, 96, 14
FEW = COLUMNS // 2  # images of a class, where each has its own label instead of a row


def draw_sheet(dataset: Dataset) -> Image.Image:
    """Classes below one another, images of each beside one another; of a set without classes, or
    with few images of each, any images, with their labels below.

    They are evenly spread over the set, its first and last class among them.
    """
    rows = _rows(dataset.labels_N)
    labelled = dataset.card.classes > 1 and not rows[0][0]
    return draw_rows(
        [(name, dataset.scaled(index_M)) for name, index_M in rows],
        bool(dataset.card.latents),
        [dataset.labels_N[index_M] for _, index_M in rows] if labelled else None,
    )


def draw_rows(
    rows: Sequence[tuple[str, NDArray[np.float32]]],
    latents: bool,
    labels: Sequence[NDArray[np.int64]] | None = None,
) -> Image.Image:
    """Rows of a name and images [M, C, H, W] in the data scale, below each image its label.

    Of latents the first three channels are shown as colours, between the 1st and 99th percentile
    of what is shown.
    """
    below = 0 if labels is None else TEXT + GUTTER
    shown = [_colours(images_MCHW) for _, images_MCHW in rows]
    low, high = -1.0, 1.0
    if latents:
        every = np.concatenate([images.ravel() for images in shown])
        low, high = (float(value) for value in np.percentile(every, [1, 99]))
    tiles = [[_tile(image, low, high) for image in images] for images in shown]
    width, height = tiles[0][0].size
    columns = max(len(row) for row in tiles)
    left = MARGIN if rows[0][0] else GUTTER
    step = height + below + GUTTER
    size = left + columns * (width + GUTTER), GUTTER + len(tiles) * step
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    for number, ((name, _), row) in enumerate(zip(rows, tiles, strict=True)):
        top = GUTTER + number * step
        draw.text((GUTTER, top + (height - TEXT) // 2), name, "black", font)
        for column, tile in enumerate(row):
            across = left + column * (width + GUTTER)
            sheet.paste(tile, (across, top))
            if labels is not None:
                draw.text((across, top + height), str(labels[number][column]), "black", font)
    return sheet


def _rows(labels_N: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    """(class, images of it) of each row; without a name rows of any classes."""
    found, counts = np.unique(labels_N, return_counts=True)
    if len(found) < 2 or np.median(counts) < FEW:
        spread = _spread(np.arange(len(labels_N)), ROWS * COLUMNS)
        return [("", part) for part in np.split(spread, range(COLUMNS, len(spread), COLUMNS))]
    return [
        (f"class {label}", _spread(np.flatnonzero(labels_N == label), COLUMNS))
        for label in _spread(found, ROWS)
    ]


def _spread(values_N: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of them, evenly spread, the first and the last among them."""
    at = np.linspace(0, len(values_N) - 1, min(count, len(values_N)))
    return values_N[np.rint(at).astype(np.int64)]


def _colours(images_MCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """[M, H, W, 3]: the first three channels, or the first one three times."""
    channels = [0, 1, 2] if images_MCHW.shape[1] > 2 else [0, 0, 0]
    return images_MCHW[:, channels].transpose(0, 2, 3, 1)


def _tile(image_HWC: NDArray[np.float32], low: float, high: float) -> Image.Image:
    """Small images are enlarged and large ones reduced by a whole number."""
    unit = (image_HWC - low) / max(high - low, 1e-12)
    tile = Image.fromarray(np.rint(unit.clip(0, 1) * 255).astype(np.uint8))
    longest = max(tile.size)
    if longest < CELL:
        factor = CELL // longest
        return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
    return tile.reduce(max(1, longest // CELL))
