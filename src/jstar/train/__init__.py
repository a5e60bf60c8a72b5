"""Room of the train stage: exact, resumable training of one DiT on one or many devices.

Shape letters:
    K  steps of a chunk    B  images of a step, or of a rank's part of it    M  images of a chunk
    N  images of the dataset    G  groups of them    P  their main directions
    C  channels    H  rows    W  columns    D  dimensions of an image
"""

from jstar.train.loop import TrainStatus, train

__all__ = ["TrainStatus", "train"]
