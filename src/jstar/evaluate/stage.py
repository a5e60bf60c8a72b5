"""The evaluate stage: losses.csv of one training run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.config import Study
from jstar.constants import COOLDOWN, TOTAL
from jstar.data import Dataset, open_dataset
from jstar.data.card import require_same
from jstar.evaluate.losses import Measured, measure
from jstar.manifest import parents
from jstar.noise import gaussian, total_weights
from jstar.optimal.exact.mixture_form import LATENT_STREAM
from jstar.optimal.oracle import Oracle, open_oracle
from jstar.progress import Progress
from jstar.records import LOSSES_COLUMNS, provenance, read_json, write_table
from jstar.torch_device import default_device
from jstar.train.snapshots import (
    list_cooldowns,
    list_snapshots,
    load_denoiser,
    require_whole,
    run_process,
    stored_averages,
)

HOLDOUT_STREAM = 7_919  # the held-out draws' noise differs from the training draws' noise


def write_losses(
    study: Study, run: Path, data: Path, oracle: Path, out: Path, device: str | None = None
) -> pd.DataFrame:
    """Measure every snapshot and EMA of `run` and write `out` (losses.csv).

    A snapshot is left out for a length that is neither stored nor told by what came before it. The
    end of a cooldown has the number of the snapshot at which it ends, and ema = COOLDOWN.

    One row per (snapshot, ema, split, sigma), and one with sigma = `total`: the run's own training
    objective, sum_s W_s J(sigma_s), W from `jstar.noise.total_weights`. Split `train` carries the
    direct gap; `holdout` (if the dataset has one) does not, the identity does not hold there.

    A model with labels is given the label of every image, whatever share training dropped: its
    optimal loss is that of `exact_by_class`. (The objective that it was trained on also counts the
    unlabelled share: `optimal_loss(..., label_drop=)`.)
    """
    verify = study.resources.verify_arrays
    dataset, draws = open_dataset(data, verify=verify), open_oracle(oracle, verify=verify)
    info = read_json(run / "run.json")
    require_whole(run)
    require_same(dataset.card.id, info["card_id"], str(data), str(run))
    require_same(dataset.card.id, draws.card_id, str(data), str(oracle))
    where = str(default_device(device))
    sets = [SplitDraws("train", dataset, draws, study)]
    if dataset.card.holdout:
        held = open_dataset(data, "holdout", verify=verify)
        sets.append(SplitDraws("holdout", held, draws, study))

    objective = total_weights(run_process(run), draws.sigma)
    weights = np.vstack([np.eye(len(draws.sigma)), objective])
    names: list[float | str] = [*map(float, draws.sigma), TOTAL]
    snapshots = list_snapshots(run)
    last = snapshots[-1]  # of this one every length must be known
    stored = stored_averages(run, last.index)
    todo = [
        (snapshot, ema)
        for snapshot in snapshots
        for ema in study.lengths
        if snapshot == last or stored_averages(run, snapshot.index).reaches(ema)
    ]
    todo += [(snapshot, COOLDOWN) for snapshot in list_cooldowns(run)]
    rows: list[tuple[Any, ...]] = []
    with Progress(f"evaluate {run.name}", len(todo), "snapshots") as bar:
        for snapshot, ema in todo:
            denoiser = load_denoiser(run, snapshot.index, ema, where)
            key = (study.study, run.name, info["model"], info["params"], info["seed"])
            for split in sets:
                measured = split.measure(denoiser, study.evaluate.batch, where)
                for sigma, values in zip(names, measured.summary(weights), strict=True):
                    place = (snapshot.index, snapshot.images, snapshot.flops, ema, split.name)
                    rows.append((*key, *place, sigma, *values))
            bar.advance()
    frame = pd.DataFrame(rows, columns=list(LOSSES_COLUMNS))
    facts = provenance(
        card_id=dataset.card.id,
        run=run.name,
        fingerprint=info["fingerprint"],
        draws=len(draws.index_M),
        seed=draws.seed,
        process=info["process"]["name"],
        total="sum over sigma of W * loss, W = trapezoids of p(ln sigma) weight(sigma)",
        profile_error={f"{ema:g}": stored.combine(ema)[1] for ema in study.lengths},
        **parents(out, [run / "run.json", oracle / "oracle.json", data / "card.json"]),
    )
    write_table(out, frame, facts)
    return frame


class SplitDraws:
    """The draws of one split (train or holdout), made once and shared by all snapshots."""

    def __init__(self, name: str, dataset: Dataset, draws: Oracle, study: Study) -> None:
        self.name, self.draws = name, draws
        self.labels_M: NDArray[np.int64] | None = None
        if name == "train":
            index = draws.index_M
            self.x0, self.noise = draws.x0(dataset), draws.noise()
        else:
            count = min(study.evaluate.queries, len(dataset))
            index = (np.arange(count) * len(dataset)) // count
            seed, draw_M = study.evaluate.seed + HOLDOUT_STREAM, np.arange(count)
            self.x0 = dataset.sampled(index, seed, draw_M + LATENT_STREAM)
            flat = gaussian(seed, draw_M, dataset.card.dim)
            self.noise = flat.reshape(self.x0.shape)
        if study.conditional:
            self.labels_M = dataset.labels_N[index]

    def measure(self, denoiser: Any, batch: int, device: str) -> Measured:
        """Squared errors of every draw; of the split train also those from D*."""
        return measure(
            denoiser,
            self.x0,
            self.noise,
            self.draws.sigma,
            labels_M=self.labels_M,
            posterior_mean=self.draws.posterior_mean if self.name == "train" else None,
            batch=batch,
            device=device,
        )
