"""One trial: the size trained for a short while at one rate, and measured as the study measures.

A trial is a run of the trainer at a constant rate: the same images and noise in each, exact resume.
Compared is what a study quotes: the total gap of the averaged weights on the fixed draws, with the
process' own weights. It is free of the variance of x0 and its draws are the same for all trials, so
the error of measuring it is small beside the luck of a trial; that of a training loss is not.
"""

import json
import math
import shutil
from dataclasses import dataclass

import numpy as np
import torch

from jstar.config import Study, TuneConfig
from jstar.data import open_dataset
from jstar.data.card import require_same
from jstar.evaluate.stage import SplitDraws
from jstar.layout import Layout
from jstar.noise import total_weights
from jstar.optimal.oracle import open_oracle
from jstar.records import fingerprint
from jstar.train.loop import DivergedError, TrainStatus, train_among
from jstar.train.optimizer import learning_rate
from jstar.train.parallel import Ranks
from jstar.train.snapshots import load_denoiser
from jstar.train.stop import Stop


@dataclass(frozen=True)
class RateTrial:
    """Total loss (J* of the draws and the gap), gap and its error; infinite if it diverged."""

    rate: float
    batch: int
    images: int
    loss: float
    gap: float
    gap_se: float


def prior_rate(study: Study, model: str) -> float:
    """The learning rate of a size by the width rule."""
    config = study.train_of(model)
    return learning_rate(config, study.width(model), config.warmup_images)


def trial_images(study: Study, model: str, train_flops: float, batch: int) -> int:
    """Length of a trial: tune.share of the run, twice the warm-up at least, in whole batches."""
    config = study.train_of(model)
    run = config.length(train_flops)
    wanted = min(run, max(math.ceil(study.tune.share * run), 2 * config.warmup_images))
    return -(-wanted // batch) * batch


def tune_batches(study: Study, model: str) -> list[int]:
    """The batches that are tried, the size's own first."""
    return list(dict.fromkeys([study.train_of(model).batch, *study.tune.batches]))


def planned_trials(study: Study, model: str) -> int:
    """Trials if the best rate lies inside: one a factor and one at the minimum, of each batch."""
    return (len(study.tune.factors) + 1) * len(tune_batches(study, model))


def planned_images(study: Study, model: str, train_flops: float) -> int:
    """Images of these trials."""
    batches = tune_batches(study, model)
    each = [trial_images(study, model, train_flops, batch) for batch in batches]
    return planned_trials(study, model) // len(batches) * sum(each)


def trial_study(study: Study, model: str, rate: float, batch: int, images: int) -> Study:
    """A study whose size `model` trains as a trial: one snapshot, at the end, of one average."""
    config = study.train_of(model).model_copy(
        update={
            "images": images, "flops": None, "batch": batch, "learning_rate": rate,
            "learning_rate_width": study.width(model), "ema": [study.fit.ema or study.train.ema[0]],
            "snapshots": 1, "first_snapshot": images, "writer": None, "cooldown": None,
        }
    )  # fmt: skip
    given = ("images", "flops", "batch", "learning_rate", "variant")  # `config` has them
    entry = study.entry(model).model_copy(update=dict.fromkeys(given))
    return study.model_copy(update={"train": config, "ladder": [entry], "tune": TuneConfig()})


class Bench:
    """What all trials of one size share: the data, the draws, and the processes at work."""

    def __init__(self, layout: Layout, model: str, ranks: Ranks, stop: Stop) -> None:
        self.layout, self.model, self.ranks, self.stop = layout, model, ranks, stop
        study, verify = layout.study, layout.study.resources.verify_arrays and ranks.first
        self.dataset = open_dataset(layout.data, verify=verify)
        self.draws = open_oracle(layout.oracle, verify=verify)
        card_id = self.dataset.card.id
        require_same(card_id, self.draws.card_id, str(layout.data), str(layout.oracle))
        self.split = SplitDraws("train", self.dataset, self.draws, study)
        self.weight_S = total_weights(study.train_of(model).make_process(), self.draws.sigma)
        errors = (
            np.square(self.draws.posterior_mean(s) - self.split.x0).mean(dtype=np.float64)
            for s in range(len(self.weight_S))
        )
        self.floor = float(self.weight_S @ np.fromiter(errors, float))  # J* of these draws

    def try_rate(self, rate: float, batch: int, images: int) -> RateTrial | TrainStatus:
        """Train and measure; or how far the training is, if it was asked to stop."""
        study = trial_study(self.layout.study, self.model, rate, batch, images)
        seed = self.layout.study.tune.seed
        identity = [study.content("train", self.model), self.dataset.card.id, seed]
        name = f"{self.model}-{rate:g}-b{batch}-{fingerprint(json.dumps(identity))[:8]}"
        out = self.layout.tune_state(self.model) / name
        if not (out / "run.json").is_file():
            try:
                status = train_among(
                    self.ranks, self.stop, study, self.model, seed, self.layout.data, out,
                    out / "state", curve=self.layout.curve,
                )  # fmt: skip
            except DivergedError:
                return RateTrial(rate, batch, images, math.inf, math.inf, math.nan)
            if not status.finished:
                return status
        found = np.zeros(2)
        if self.ranks.first:
            shutil.rmtree(out / "state", ignore_errors=True)  # the snapshot is in `out`
            device = str(self.ranks.device)
            denoiser = load_denoiser(out, 0, study.train.ema[0], device)
            measured = self.split.measure(denoiser, study.evaluate.batch, device)
            found = np.array(measured.summary(self.weight_S)[0][2:])
        shared = self.ranks.sum(torch.from_numpy(found).to(self.ranks.device))
        gap, error = shared.tolist()
        return RateTrial(rate, batch, images, self.floor + gap, gap, error)
