"""What evaluation costs, before there is a run to evaluate."""

from jstar.config import Study
from jstar.data.prepare import Split
from jstar.train.events import TrainingEvents


def evaluation_flops(study: Study, events: TrainingEvents, split: Split, forward: float) -> float:
    """FLOPs of evaluating one run with these events; `forward` are those of one image."""
    draws = min(study.evaluate.queries, split.train)
    draws += min(study.evaluate.queries, len(split.held_out))
    networks = len(events.snapshots) * len(study.lengths) + len(events.branches)
    return forward * networks * study.sigmas.count * draws
