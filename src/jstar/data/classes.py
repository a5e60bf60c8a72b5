"""What class labels must be: within the classes, and where models see them, of two or more."""

import numpy as np
from numpy.typing import NDArray

from jstar.errors import JstarError


def require_range(labels_N: NDArray[np.int64], classes: int | None, where: str) -> None:
    """Refuse labels below 0 or, where the number of classes is known, not below it."""
    low, high = int(labels_N.min(initial=0)), int(labels_N.max(initial=0))
    if low < 0 or (classes is not None and high >= classes):
        allowed = "from 0 on" if classes is None else f"0 to {classes - 1}"
        raise JstarError(
            f"{where}: has the label {low if low < 0 else high}, allowed are {allowed}"
        )


def require_classes(labels_N: NDArray[np.int64], classes: int | None, where: str) -> None:
    """Refuse labels that a class-conditional study cannot use. Raises JstarError.

    There must be two classes or more, and an image of each: K of them have the labels 0 to K-1.
    """
    require_range(labels_N, classes, where)
    found = np.unique(labels_N)
    count = max(classes or 0, int(found[-1]) + 1)
    remedy = "model.class_drop: 1 trains without labels"
    if count < 2:
        raise JstarError(
            f"{where}: has no class labels (all are 0), a model that sees labels needs two classes "
            f"or more; {remedy}"
        )
    if len(found) < count:
        missing = next((n for n, label in enumerate(found) if n != label), len(found))
        raise JstarError(
            f"{where}: has {count} classes, and of {count - len(found)} of them (the first is "
            f"{missing}) no image to train on, a model that sees labels needs some of each; "
            f"{remedy}"
        )


def images_a_class(labels_N: NDArray[np.int64], classes: int) -> tuple[int, int, int]:
    """The fewest images that a class has, the median (of two the lower one), and the most."""
    counts = np.sort(np.unique(labels_N, return_counts=True)[1])
    empty, middle = classes - len(counts), (classes - 1) // 2
    median = 0 if middle < empty else int(counts[middle - empty])
    return 0 if empty else int(counts[0]), median, int(counts[-1])
