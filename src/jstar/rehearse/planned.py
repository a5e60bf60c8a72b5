"""What `jstar plan` says of a size, on the hardware that it was rehearsed on."""

from jstar.config import Study
from jstar.data.check import source_shape
from jstar.data.prepare import split_of
from jstar.evaluate.cost import evaluation_flops
from jstar.hardware import find_gpu
from jstar.model import flops, parameters
from jstar.plan import guessed_speed
from jstar.preflight.roofline import Machine, images_per_second
from jstar.rehearse.compare import Planned
from jstar.rehearse.orders import TrainReport
from jstar.train.events import run_events


def planned_of(study: Study, model: str, told: TrainReport) -> Planned:
    """Of a GPU by the count and the roofline, of a CPU by the guess. Nothing of it is measured.

    No speed is planned for a study that trains on GPUs on a CPU: what it states is a GPU's.
    """
    load, cut = told.load(study, model)
    config, gpu = load.config, find_gpu(told.kind)
    forward = flops(load.shape)
    if told.device == "cpu" and not study.resources.train_gpus:
        rate = guessed_speed(study)
        speed: float | None = rate / (3 * forward)
        reading: float | None = rate
    elif gpu is not None:
        speed = images_per_second(load, cut, Machine.of(gpu, bf16=config.precision == "bf16"))
        reading = Machine.of(gpu, bf16=study.evaluate.precision == "bf16").matrix
    else:
        speed = reading = None
    weights = 4.0 * parameters(load.shape)
    state = weights * (3 + len(config.ema))
    evaluation = None if reading is None else work_of_network(study, model) * forward / reading
    return Planned(
        speed, load.footprint(cut).total, state / (1e9 * study.resources.disk_gb_per_second), state,
        weights * len(config.ema), evaluation,
    )  # fmt: skip


def work_of_network(study: Study, model: str) -> float:
    """Draws at single noise scales that measuring one network takes."""
    count, *sides = source_shape(study.dataset)
    events = run_events(study, model, (sides[0], sides[1], sides[2]), study.resources.processes)
    networks = len(events.snapshots) * len(study.lengths) + len(events.branches)
    return evaluation_flops(study, events, split_of(study.dataset, count), 1.0) / networks
