"""The evaluate stage: losses.csv of one training run."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from jstar.config import Study
from jstar.constants import COOLDOWN, TOTAL
from jstar.data import Dataset, open_dataset
from jstar.data.card import require_same
from jstar.evaluate.losses import Measured, measure
from jstar.evaluate.parts import MeasuredNetworks, Network
from jstar.manifest import parents
from jstar.noise import gaussian, total_weights
from jstar.optimal.exact.mixture_form import LATENT_STREAM
from jstar.optimal.oracle import Oracle, open_oracle
from jstar.progress import Progress
from jstar.records import LOSSES_COLUMNS, SEAL, provenance, read_json, write_json, write_table
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


class Evaluation:
    """Everything that measuring the networks of one run needs, whichever of them.

    Raises JstarError where run, data and oracle are not of one training distribution.
    """

    def __init__(
        self, study: Study, run: Path, data: Path, oracle: Path, state: Path,
        device: str | None = None,
    ) -> None:  # fmt: skip
        self.study, self.run = study, run
        verify = study.resources.verify_arrays
        self.dataset = open_dataset(data, verify=verify)
        self.draws = open_oracle(oracle, verify=verify)
        self.info = read_json(run / "run.json")
        require_whole(run)
        require_same(self.dataset.card.id, self.info["card_id"], str(data), str(run))
        require_same(self.dataset.card.id, self.draws.card_id, str(data), str(oracle))
        self.where = str(default_device(device))
        self.sets = [SplitDraws("train", self.dataset, self.draws, study)]
        if self.dataset.card.holdout:
            held_out = open_dataset(data, "holdout", verify=verify)
            self.sets.append(SplitDraws("holdout", held_out, self.draws, study))
        self.objective_S = total_weights(run_process(run), self.draws.sigma)
        content = {
            "run": [self.info["fingerprint"], self.info.get(SEAL)], "card": self.dataset.card.id,
            "sigma": self.draws.sigma, "draws": [len(s.x0) for s in self.sets],
            "seeds": [self.draws.seed, study.evaluate.seed], "conditional": study.conditional,
            "precision": study.evaluate.precision, "device": torch.device(self.where).type,
        }  # fmt: skip
        self.parts = MeasuredNetworks(state, content)

    def networks(self) -> list[Network]:
        """What is measured: every snapshot with every length that is known there, cooldowns."""
        snapshots = list_snapshots(self.run)
        last = snapshots[-1]  # of this one every length must be known
        averages = [
            Network(s.index, s.images, s.flops, ema)
            for s in snapshots
            for ema in self.study.lengths
            if s == last or stored_averages(self.run, s.index).reaches(ema)
        ]
        ends = list_cooldowns(self.run)
        return averages + [Network(s.index, s.images, s.flops, COOLDOWN) for s in ends]

    def measure(self, networks: list[Network]) -> None:
        """Measure those that are not yet; what is done stays done whatever happens."""
        with Progress(f"evaluate {self.run.name}", len(networks), "networks") as bar:
            for network in networks:
                if self.parts.read(network) is None:
                    self.parts.write(network, self._rows(network, self.study.evaluate.precision))
                bar.advance()

    def _rows(self, network: Network, precision: str) -> list[list[float]]:
        """(loss, loss_se, gap, gap_se) of each split and each noise scale, the total last."""
        denoiser = load_denoiser(
            self.run, network.snapshot, network.ema, self.where, bf16=precision == "bf16"
        )
        weights = np.vstack([np.eye(len(self.draws.sigma)), self.objective_S])
        return [
            list(values)
            for split in self.sets
            for values in split.measure(denoiser, self.study.evaluate.batch, self.where).summary(
                weights
            )
        ]

    def frame(self, networks: list[Network]) -> pd.DataFrame:
        """losses.csv of networks that are measured."""
        facts = (self.info[key] for key in ("model", "params", "seed"))
        key = (self.study.study, self.run.name, *facts)
        names: list[float | str] = [*map(float, self.draws.sigma), TOTAL]
        places = [(split.name, sigma) for split in self.sets for sigma in names]
        rows = [
            (*key, n.snapshot, n.images, n.flops, n.ema, *place, *values)
            for n in networks
            for place, values in zip(places, self.parts.read(n) or [], strict=True)
        ]
        return pd.DataFrame(rows, columns=list(LOSSES_COLUMNS))

    def bias(self, network: Network) -> dict[str, Any] | None:
        """What the precision does to a network, per noise scale; None where it is float32.

        Differences of the losses on the same draws, so their noise cancels; `share_of_gap` is the
        difference of the gaps over the float32 gap.
        """
        if self.study.evaluate.precision == "fp32":
            return None
        half, full = self.parts.read(network), self._rows(network, "fp32")
        count = len(self.draws.sigma)
        low, high = np.array(half)[:count], np.array(full)[:count]
        return {
            "snapshot": network.snapshot,
            "ema": network.ema,
            "sigma": self.draws.sigma,
            "loss": low[:, 0] - high[:, 0],
            "gap": low[:, 2] - high[:, 2],
            "share_of_gap": (low[:, 2] - high[:, 2]) / high[:, 2],
        }


def write_losses(
    study: Study, run: Path, data: Path, oracle: Path, out: Path, state: Path,
    device: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Measure every snapshot and EMA of `run` and write `out` (losses.csv).

    Goes on where an earlier call was killed: what is measured lies in `state`, the run's folder of
    resumable state, also where jobs measured a share each (`measure_share`).

    A snapshot is left out for a length that is neither stored nor told by what came before it. The
    end of a cooldown has the number of the snapshot at which it ends, and ema = COOLDOWN.

    One row per (snapshot, EMA, split, sigma), and one with sigma = `total`: the run's own training
    objective, sum_s W_s J(sigma_s), W from `jstar.noise.total_weights`. Split `train` carries the
    direct gap; `holdout` (if the dataset has one) does not, the identity does not hold there.

    A model with labels is given the label of every image, whatever share training dropped: its
    optimal loss is that of `exact_by_class`. (The objective that it was trained on also counts the
    unlabelled share: `optimal_loss(..., label_drop=)`.)
    """
    work = Evaluation(study, run, data, oracle, state, device)
    stored = stored_averages(run, list_snapshots(run)[-1].index)
    networks = work.networks()
    work.measure(networks)
    last = [n for n in networks if n.ema != COOLDOWN][-1]
    frame, bias = work.frame(networks), work.bias(last)
    if bias is not None:
        worst = np.nanmax(np.abs(bias["share_of_gap"]))
        print(
            f"evaluate: bf16 moves the gap of snapshot {last.snapshot} by {worst:.2%} at the noise "
            "scale where that is most; losses.json has all of them", file=sys.stderr,
        )  # fmt: skip
    facts = provenance(
        card_id=work.dataset.card.id,
        run=run.name,
        fingerprint=work.info["fingerprint"],
        draws=len(work.draws.index_M),
        seed=work.draws.seed,
        process=work.info["process"]["name"],
        total="sum over sigma of W * loss, W = trapezoids of p(ln sigma) weight(sigma)",
        profile_error={f"{ema:g}": stored.combine(ema)[1] for ema in study.lengths},
        **parents(out, [run / "run.json", oracle / "oracle.json", data / "card.json"]),
        **({} if bias is None else {"precision": study.evaluate.precision, "bias": bias}),
    )
    write_table(out, frame, facts)
    return frame


def measure_share(
    study: Study, run: Path, data: Path, oracle: Path, out: Path, state: Path,
    share: tuple[int, int], device: str | None = None,
) -> None:  # fmt: skip
    """Measure the networks k, k + n, k + 2n ... of (k, n) = `share`; `out` then says it is done.

    Their numbers are those of one job that measures all.
    """
    number, count = share
    work = Evaluation(study, run, data, oracle, state, device)
    mine = work.networks()[number - 1 :: count]
    work.measure(mine)
    write_json(out, {"networks": len(mine), "parts": work.parts.folder.name})


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
