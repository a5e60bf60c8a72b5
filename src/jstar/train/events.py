"""What happens when, in steps: a pure function of the configuration, never of the clock.

Work between two events is cut into chunks. Their borders are part of the run's arithmetic (a
vectorised exp may differ in the last bit with a value's place in the array), so an interrupted
run must meet the same borders again: checkpoints are written at borders only.
"""

import math
from dataclasses import dataclass

import numpy as np

from jstar.config import Study, TrainConfig
from jstar.errors import JstarError
from jstar.model import flops, model_config

CHUNK_STEPS = 64
CHUNK_FLOPS = 1e15  # a chunk stays in the range of seconds, also on a large machine
CHUNK_BYTES = 2**28  # of float32 images
RECORDS = 50  # telemetry rows per noise bin, evenly spaced, besides those at snapshots


@dataclass(frozen=True)
class TrainingEvents:
    """Steps at which things happen, all counted after the step. FLOPs are those of training."""

    flops_per_image: float
    batch: int
    steps: int
    snapshots: tuple[int, ...]
    records: frozenset[int]
    chunk_steps: int

    @property
    def images(self) -> int:
        """Images of the whole run."""
        return self.steps * self.batch

    def border(self, step: int) -> int:
        """The next chunk border after `step`."""
        end = min(self.steps, (step // self.chunk_steps + 1) * self.chunk_steps)
        return min([end, *(s for s in self.records if step < s < end)])


def training_events(config: TrainConfig, train_flops: float, image_bytes: int) -> TrainingEvents:
    """The events of a run; `train_flops` and `image_bytes` are those of one image.

    A run is a whole number of batches: its length is rounded up. Snapshots are log-spaced in
    images from first_snapshot to the end; those that fall on the same step are one. Raises
    JstarError if the run ends before the first of them.
    """
    batch = config.batch
    images = config.length(train_flops)
    if config.first_snapshot > images:
        raise JstarError(
            f"train.first_snapshot = {config.first_snapshot} exceeds the {images} images of a run "
            f"of {train_flops:.3g} FLOPs an image"
        )
    steps = -(-images // batch)
    grid = np.geomspace(config.first_snapshot, steps * batch, config.snapshots)
    snapshots = sorted({min(steps, max(1, round(images / batch))) for images in grid} | {steps})
    even = {round(steps * (k + 1) / RECORDS) for k in range(RECORDS)} - {0}
    chunk = min(
        CHUNK_STEPS, CHUNK_FLOPS / (train_flops * batch), CHUNK_BYTES / (image_bytes * batch)
    )
    return TrainingEvents(
        flops_per_image=train_flops,
        batch=batch,
        steps=steps,
        snapshots=tuple(snapshots),
        records=frozenset(even | set(snapshots)),
        chunk_steps=max(1, int(chunk)),
    )


def run_events(study: Study, model: str, shape: tuple[int, int, int]) -> TrainingEvents:
    """Those of a ladder entry on images of a shape (C, H, W)."""
    # The label table costs no FLOPs, so the number of classes does not matter.
    network = model_config(study.model, study.entry(model), shape, 0)
    return training_events(study.train_of(model), 3 * flops(network), 4 * math.prod(shape))
