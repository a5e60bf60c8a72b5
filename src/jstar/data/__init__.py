"""Room of the prepare stage: images and labels on disk, and the card that identifies them."""

from jstar.data.card import Card
from jstar.data.prepare import prepare
from jstar.data.store import Dataset, open_dataset

__all__ = ["Card", "Dataset", "open_dataset", "prepare"]
