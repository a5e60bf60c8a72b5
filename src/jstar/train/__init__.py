"""Room of the train stage: exact, resumable training of one DiT on one or many devices."""

from jstar.train.loop import TrainStatus, train

__all__ = ["TrainStatus", "train"]
