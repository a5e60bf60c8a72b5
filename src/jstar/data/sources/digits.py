"""scikit-learn's digits: the one dataset that needs no file."""

import numpy as np

from jstar.config import DatasetConfig
from jstar.data.sources.base import Reader, Source, in_memory

COUNT = 1797


def open_digits(config: DatasetConfig) -> Source:
    """The 1,797 8x8 digits inside scikit-learn: grey levels 0..16, scaled to -1..1."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Source(
        count=COUNT,
        shape=(1, 8, 8),
        jobs=in_memory(bunch.images.astype(np.uint8)[:, None], bunch.target),
        identity="scikit-learn digits",
        offset=8.0,
        scale=1 / 8,
        classes=10,
        labels=lambda: bunch.target.astype(np.int64),
        license="CC BY 4.0 (UCI Machine Learning Repository)",
        citation="Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits",
    )


DIGITS = Reader(open_digits, lambda config: (COUNT, (1, 8, 8)), needs_path=False)
