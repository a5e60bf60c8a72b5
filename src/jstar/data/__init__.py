"""Room of the prepare stage: images and labels on disk, and the card that identifies them.

Shape letters:
    N  images of the dataset    B  images read at a time    M  draws from the distribution
    C  channels    H, W  rows and columns    D  values of an image    V  8-byte words of an image
"""

from jstar.data.card import Card
from jstar.data.memory import save_images
from jstar.data.prepare import prepare
from jstar.data.store import Dataset, open_dataset

__all__ = ["Card", "Dataset", "open_dataset", "prepare", "save_images"]
