"""The noise law of a run: where it draws its noise scales, and how it weighs their losses."""

from collections.abc import Callable

import pandas as pd
from torch import Tensor

from jstar.noise import Process
from jstar.train.chunk import Chunk
from jstar.train.parallel import Ranks

Control = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x0, eps, sigma [M, 1]) -> [M]


class TrainingNoiseLaw:
    """What a run asks of its noise law. This one is that of its process, and never changes.

    process: with the law and the weight to train with now. control: a control variate of the
    squared x0 error. identity: what the law depends on besides the run's configuration.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.control: Control | None = None
        self.identity: dict[str, str] = {}

    @property
    def floor(self) -> float | None:
        """The training loss of the best denoiser under the present law, where it is known."""
        return None

    def follow(self, chunk: Chunk, error_KB: Tensor, images: int, ranks: Ranks) -> None:
        """Learn from the network's squared errors of a chunk, `images` seen after it.

        All ranks must call it.
        """

    def record(self, images: int) -> None:
        """Note the law as it is now."""

    def frame(self) -> pd.DataFrame | None:
        """The notes as a tidy table."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {}

    def restore(self, tensors: dict[str, Tensor], images: int) -> None:
        """Undo `tensors`, kept after `images` images."""
