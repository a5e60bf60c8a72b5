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
class Branch:
    """A cooldown, in steps: from the run's state after `start` to its snapshot `index` at `end`.

    Its learning rate falls; images and noise are those of the run.
    """

    index: int
    start: int
    end: int


@dataclass(frozen=True)
class TrainingEvents:
    """Steps at which things happen, all counted after the step. FLOPs are those of training."""

    flops_per_image: float
    batch: int
    steps: int
    snapshots: tuple[int, ...]
    records: frozenset[int]
    chunk_steps: int
    branches: tuple[Branch, ...] = ()

    @property
    def images(self) -> int:
        """Images of the whole run, its cooldowns left out."""
        return self.steps * self.batch

    @property
    def total_images(self) -> int:
        """Images of the run and of its cooldowns."""
        return self.images + self.batch * sum(b.end - b.start for b in self.branches)

    def trained_images(self, step: int, branch: Branch | None) -> int:
        """Those trained until `step` of the run, or of a branch: it comes after those before it."""
        if branch is None:
            return step * self.batch
        before = self.branches[: self.branches.index(branch)]
        steps = sum(b.end - b.start for b in before) + step - branch.start
        return self.images + self.batch * steps

    def border(self, step: int) -> int:
        """The next chunk border after `step`."""
        end = min(self.steps, (step // self.chunk_steps + 1) * self.chunk_steps)
        forks = (branch.start for branch in self.branches)
        return min([end, *(s for s in (*self.records, *forks) if step < s < end)])


def training_events(
    config: TrainConfig, train_flops: float, image_bytes: int, world: int = 1
) -> TrainingEvents:
    """The events of a run by `world` processes; `train_flops`, `image_bytes`: of one image.

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
    share = batch / world  # a chunk is what one process does between two waits for its device
    chunk = min(
        CHUNK_STEPS, CHUNK_FLOPS / (train_flops * share), CHUNK_BYTES / (image_bytes * share)
    )
    return TrainingEvents(
        flops_per_image=train_flops,
        batch=batch,
        steps=steps,
        snapshots=tuple(snapshots),
        records=frozenset(even | set(snapshots)),
        chunk_steps=max(1, int(chunk)),
        branches=_branches(config, snapshots),
    )


def _branches(config: TrainConfig, snapshots: list[int]) -> tuple[Branch, ...]:
    """The cooldowns of a run with snapshots at these steps, evenly spaced among them.

    None but the last begins within the warm-up. Raises JstarError for a run of one step.
    """
    if config.cooldown is None:
        return ()
    share, last = config.cooldown.share, len(snapshots) - 1
    if snapshots[last] < 2:
        raise JstarError("train.cooldown: a run of one step has none, at least 2 are needed")
    every = [
        Branch(index, max(1, min(end - 1, round((1 - share) * end))), end)
        for index, end in enumerate(snapshots)
        if end > 1
    ]
    able = [
        branch
        for branch in every
        if branch.index == last or branch.start * config.batch >= config.warmup_images
    ]
    picked = {round(k) for k in np.linspace(len(able) - 1, 0, config.cooldown.snapshots)}
    return tuple(able[k] for k in sorted(picked))


def run_events(
    study: Study, model: str, shape: tuple[int, int, int], world: int = 1
) -> TrainingEvents:
    """Those of a ladder entry on images of a shape (C, H, W), by `world` processes."""
    # The label table costs no FLOPs, so the number of classes does not matter.
    network = model_config(study.model, study.entry(model), shape, 0)
    return training_events(study.train_of(model), 3 * flops(network), 4 * math.prod(shape), world)
