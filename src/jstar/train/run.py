"""Everything that one process holds of a run, and how it is written and read back."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jstar.config import Study
from jstar.constants import COOLDOWN
from jstar.data import open_dataset
from jstar.errors import JstarError
from jstar.model import DiT, flops, model_config
from jstar.model.fast_network import network_kernel
from jstar.model.network_choice import IN_C, IN_TORCH, choose_network, noted_network
from jstar.train.checkpoint import (
    load_newest,
    mark,
    require_unchanged,
    write_part,
    write_with_record,
)
from jstar.train.ema import PowerEMA
from jstar.train.events import Branch, training_events
from jstar.train.footprint import Load, cut_here
from jstar.train.objective import Objective, noise_scale
from jstar.train.optimal_noise_law import choose_noise_law
from jstar.train.optimizer import Optimizer
from jstar.train.parallel import Ranks, fill, local, spread, whole
from jstar.train.saver import Saver
from jstar.train.snapshots import cooldown_file, snapshot_file, tensor_key
from jstar.train.speed import Speedometer
from jstar.train.stream import Stream
from jstar.train.telemetry import LossBins
from jstar.train.tensor_file import TensorFile

CHECKPOINTS = "checkpoints"
CHECKPOINT = "checkpoint"  # kind of a save
MAX_ROLLBACKS = 3
BRANCHES = "branches"  # folder of a folder of checkpoints for each cooldown


class Run:
    """A run of one ladder entry and seed; `state` is its folder of resumable state.

    `branch` is the cooldown that is being trained, None for the run itself.
    """

    def __init__(
        self, study: Study, model: str, seed: int, data: Path, state: Path, ranks: Ranks,
        curve: Path | None = None,
    ) -> None:  # fmt: skip
        self.study, self.model, self.seed, self.data = study, model, seed, data
        self.state, self.ranks, self.config = state, ranks, study.train_of(model)
        if self.config.batch % ranks.world:
            raise JstarError(
                f"train.batch = {self.config.batch} is not a multiple of the {ranks.world} "
                "processes"
            )
        self.dataset = open_dataset(data, verify=ranks.first and study.resources.verify_arrays)
        self.dataset.labels_for(study.conditional)  # refuses what cannot be learned
        card = self.dataset.card
        self.process = self.config.make_process()
        shape = model_config(study.model, study.entry(model), card.shape, card.classes)
        self.shape = replace(shape, noise_scale=noise_scale(self.process))
        self.train_flops = 3 * flops(self.shape)  # of one image
        self.events = training_events(self.config, self.train_flops, 4 * card.dim, ranks.world)
        self.load = self._load()
        self.cut = cut_here(self.load, ranks)
        self.noise_law = choose_noise_law(
            self.config, self.process, self.dataset, curve, ranks.device
        )
        self.stream = Stream(
            self.dataset, self.noise_law, seed, batch=self.config.batch,
            class_drop=study.model.class_drop, rank=ranks.rank, world=ranks.world,
            device=ranks.device, resident=self.cut.resident,
        )  # fmt: skip
        self.bins = LossBins(self.process, ranks.device)
        self.speed = Speedometer(self.train_flops, ranks, self.config)
        self.saver = Saver(ranks.device)  # used by the first rank, and by all where sharded
        # What this rank has written of a checkpoint, and what makes all of it count.
        self._unmarked: tuple[dict[str, Any], Callable[[dict[str, Any]], None]] | None = None
        self.step = 0
        self.settled = False  # DDP has ordered its buckets in this process
        self.leap = 0  # steps' worth of data that were left out after bad steps
        self.rollbacks = 0
        self.devices = [ranks.kind]  # that trained it, in this order
        self.branch: Branch | None = None
        self.identity = json.dumps(
            {
                "run": json.loads(study.content("train", model)), "card": card.id, "seed": seed,
                **self.noise_law.identity,
            },
            sort_keys=True,
        )  # fmt: skip
        self._build()

    @property
    def images(self) -> int:
        """Images seen so far: in a branch those of its trunk, and its own."""
        return self.step * self.config.batch

    @property
    def trained_images(self) -> int:
        """Images trained so far, by the run and its branches."""
        return self.events.trained_images(self.step, self.branch)

    @property
    def end(self) -> int:
        """Step at which the run, or its branch, is done."""
        return self.events.steps if self.branch is None else self.branch.end

    def _load(self) -> Load:
        """What the run asks of a device's memory."""
        images = [a for a in (self.dataset.images_NCHW, self.dataset.stds_NCHW) if a is not None]
        share = self.config.batch // self.ranks.world
        chunk = 4 * self.dataset.card.dim * self.events.chunk_steps * share
        return Load(
            self.model, self.shape, self.config, self.ranks.world,
            float(sum(array.nbytes for array in images)), float(chunk),
        )  # fmt: skip

    def _build(self) -> None:
        """Network, optimiser and averages."""
        network = DiT.drawn(self.shape, self.seed)
        network.recompute = self.cut.recompute
        self.network = network
        self.way = IN_C if network.in_c else IN_TORCH
        objective = Objective(network, self.process.learned_weight).to(self.ranks.device)
        if self.config.compile:
            # Else a block's graph is cut where a bucket of DDP's gradients ends: 2 graphs for 1 in
            # tests/train/test_compiled.py. All blocks share one, for each size of a microbatch.
            torch._dynamo.config.optimize_ddp = False
            for block in network.blocks:
                block.compile(dynamic=False, fullgraph=True)
        bf16 = self.config.precision == "bf16"
        self.objective: nn.Module = spread(objective, self.ranks, shard=self.cut.shard, bf16=bf16)
        self.named = dict(objective.named_parameters())
        self.optimizer = Optimizer(list(self.named.values()), self.config, self.ranks)
        # The averages leave out a learned loss weight: it is no part of the denoiser.
        self.averaged = [name for name in self.named if name.startswith("network.")]
        self.ema = PowerEMA([local(self.named[n]) for n in self.averaged], self.config.ema)
        self.autocast: AbstractContextManager[Any] = (
            torch.autocast(self.ranks.device.type, torch.bfloat16) if bf16 else nullcontext()
        )

    # -- files ---------------------------------------------------------------------------------

    def write_snapshot(self, index: int) -> None:
        """Write the averages of all lengths, in the background."""
        self._write_networks("snapshot", snapshot_file(self.state, index), self.ema.averages)

    def write_cooldown(self, branch: Branch) -> None:
        """Write the weights themselves, at the end of a branch, whose checkpoints may then go."""
        weights = [local(self.named[name]).detach() for name in self.averaged]
        path = cooldown_file(self.state, branch.index)
        self._write_networks("cooldown", path, {COOLDOWN: weights})
        self.wait_for_saves()
        if self.ranks.first:
            shutil.rmtree(self._checkpoints(branch))
        self.ranks.barrier()

    def _write_networks(self, kind: str, path: Path, networks: dict[float, list[Tensor]]) -> None:
        """Write averages of the network's weights (this rank's parts) by their length."""
        parts = {
            tensor_key(length, name.removeprefix("network.")): (part, self.named[name])
            for length, parts in networks.items()
            for name, part in zip(self.averaged, parts, strict=True)
        }
        facts = {"images": self.images}
        self._start(kind, parts, lambda copy: write_with_record(path, copy, facts))

    def _start(
        self, kind: str, parts: Mapping[str, tuple[Tensor, Tensor]],
        write: Callable[[TensorFile], None],
    ) -> None:  # fmt: skip
        """Copy parts (like sharded parameters: gathered one at a time); `write` in the background.

        All ranks must call it. The first one writes, of a sharded run's checkpoint each.
        """
        writes = self.ranks.first or (kind == CHECKPOINT and self.cut.shard)
        with self.speed.saving():
            if writes:
                shapes = {key: like.detach() for key, (_, like) in parts.items()}
                copy = self.saver.copy(kind, shapes)
            for key, (part, like) in parts.items():
                full = whole(part, like)
                if writes:
                    copy.put(key, full)
            if writes:
                self.saver.start(kind, write)

    def mark_saved(self) -> None:
        """Make what all ranks have written of a checkpoint count. All ranks must call it."""
        if self._unmarked is None:
            return
        with self.speed.saving():
            (made, marking), self._unmarked = self._unmarked, None
            self.saver.wait(CHECKPOINT)
            self.saver.check()
            parts = self.ranks.gather(made)
            if self.ranks.first:
                all_made = {name: facts for part in parts for name, facts in part.items()}
                self.saver.do("marker", partial(marking, all_made))

    def wait_for_saves(self) -> None:
        """Until all is written, on every rank. Raises JstarError where that failed."""
        self.mark_saved()
        with self.speed.saving():
            self.saver.wait()
            self.ranks.barrier()

    def parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """All state that is shaped like a weight: name -> (local part, its parameter)."""
        out: dict[str, tuple[Tensor, Tensor]] = {}
        moments = self.optimizer.moments()
        for k, (name, parameter) in enumerate(self.named.items()):
            out[f"weights/{name}"] = (self.optimizer.weights[k], parameter)
            for key in ("exp_avg", "exp_avg_sq"):
                out[f"{key}/{name}"] = (moments[key][k], parameter)
        for length, parts in self.ema.averages.items():
            for name, part in zip(self.averaged, parts, strict=True):
                out[f"ema/{length:g}/{name}"] = (part, self.named[name])
        return out

    def save(self) -> None:
        """Write a checkpoint in the background; any number of ranks resumes.

        Where the model is sharded each rank writes its part, and `mark_saved` makes them count.
        """
        self._save(self._checkpoints(self.branch))

    @property
    def save_bytes(self) -> float:
        """Of a checkpoint: weights, AdamW's moments and the averages."""
        return 4.0 * sum(p.numel() for p in self.named.values()) * (3 + len(self.config.ema))

    @property
    def save_seconds(self) -> float:
        """What writing a checkpoint takes: as the longest so far, or as planned."""
        planned = self.study.resources.save_seconds(self.save_bytes, sharded=self.cut.shard)
        return self.saver.seconds or planned

    def fork(self, branch: Branch) -> None:
        """Write the run's state as the first checkpoint of a branch, which then begins anew."""
        if self.ranks.first:
            cooldown_file(self.state, branch.index).unlink(missing_ok=True)
            shutil.rmtree(self._checkpoints(branch), ignore_errors=True)
        self.ranks.barrier()  # no part may lie there yet
        self._save(self._checkpoints(branch))

    def _checkpoints(self, branch: Branch | None) -> Path:
        """Folder of the checkpoints of the run itself, or of a branch."""
        if branch is None:
            return self.state / CHECKPOINTS
        return self.state / BRANCHES / f"{branch.index:03d}"

    def rest(self) -> dict[str, Tensor]:
        """All other state that is numbers. All ranks must call it."""
        return {
            "adam_steps": self.optimizer.moments()["step"][0],
            "health": self.optimizer.health,
            "bins": self.ranks.rows(self.bins.sums),
            "records": torch.tensor(self.bins.rows, dtype=torch.float64),
            **self.noise_law.tensors(),
        }

    def _save(self, folder: Path) -> None:
        self.mark_saved()
        facts = {
            "identity": self.identity, "step": self.step, "leap": self.leap,
            "rollbacks": self.rollbacks, "devices": self.devices, "block": self.way,
            **self.speed.facts(),
        }  # fmt: skip
        images, ranks, rest = self.images, self.ranks, self.rest()
        own = {key: part for key, (part, _) in self.parts().items()} | (rest if ranks.first else {})
        made, marking = dict[str, Any](), partial(mark, folder, images, facts)

        def write(copy: TensorFile) -> None:
            made.update(write_part(folder, images, copy, ranks if self.cut.shard else None))
            if not self.cut.shard:
                marking(made)

        pairs = {key: (tensor, tensor) for key, tensor in own.items()}
        self._start(CHECKPOINT, pairs, write)
        self._unmarked = (made, marking) if self.cut.shard else None

    def roll_back(self) -> int:
        """Go back to the newest checkpoint, leave out the data from there to here: how many steps.

        Raises JstarError without a checkpoint, or where it was done MAX_ROLLBACKS times already.
        """
        self.wait_for_saves()
        bad, branch = self.step + self.leap, self.branch
        found, _ = load_newest(self._checkpoints(branch), self.ranks)
        if found is None or self.rollbacks >= MAX_ROLLBACKS:
            why = f"{self.rollbacks} times already" if self.rollbacks else "no checkpoint is there"
            raise JstarError(f"cannot be rolled back, {why}")
        self.rollbacks += 1
        self.speed.begin_session()
        self.restore(branch)
        left_out = bad - self.step - self.leap
        self.leap += left_out
        self.optimizer.health[1:4] = 0.0
        return left_out

    def enter(self, part: Branch | None) -> None:
        """Go to a branch, or back to the run itself (None), where that is not where this one is."""
        if part is not self.branch:
            self.speed.begin_session()
            self.restore(part)

    @torch.no_grad()
    def restore(self, branch: Branch | None = None) -> None:
        """Go on from the newest intact checkpoint, if there is one; with `branch` from that one's.

        A branch has one since the run forked. Raises JstarError where it is lost.
        """
        self.wait_for_saves()
        found, complaints = load_newest(self._checkpoints(branch), self.ranks)
        if self.ranks.first:
            for complaint in complaints:
                print(f"train: {complaint}; trying the one before", file=sys.stderr)
        if found is None and branch is not None:
            raise JstarError(
                f"{self._checkpoints(branch)}: holds no intact state of the cooldown to snapshot "
                f"{branch.index} ({'; '.join(complaints) or 'no checkpoint is there'}); remove "
                f"{self.state} to train the run anew"
            )
        if found is None:
            if complaints and self.ranks.first:
                print("train: no checkpoint is intact, starting anew", file=sys.stderr)
            self.choose_network()
            return
        require_unchanged(found.facts["identity"], self.identity, self.state)
        rest, same = found.parts[0], self.cut.shard and len(found.parts) == self.ranks.world
        for key, (part, like) in self.parts().items():
            if same:
                part.copy_(found.parts[self.ranks.rank][key])
            else:
                fill(part, found.whole(key), like)
        for steps in self.optimizer.moments()["step"]:
            steps.copy_(rest["adam_steps"])
        if "health" in rest:
            self.optimizer.health.copy_(rest["health"])
        else:  # of an earlier version, which counted only these
            self.optimizer.health[0] = rest["skipped"].to(self.ranks.device)
        self.bins.sums.copy_(self.ranks.own(rest["bins"].view(-1, *self.bins.sums.shape)))
        self.bins.rows = rest["records"].tolist()
        self.step, self.branch = found.facts["step"], branch
        self.leap = found.facts.get("leap", 0)
        self.rollbacks = max(self.rollbacks, found.facts.get("rollbacks", 0))
        self._go_on_from(found.facts.get("devices", self.devices))
        self._go_on_with(found.facts.get("block"))
        self.noise_law.restore(rest, self.images)
        self.speed.restore(found.facts)

    def choose_network(self) -> None:
        """Compute the network by what is fastest here, as the first rank says. All must call it."""
        config, cut, way = self.config, self.cut, IN_TORCH
        plain = config.precision == "fp32" and not (config.compile or cut.recompute or cut.shard)
        if self.ranks.first and self.ranks.device.type == "cpu" and plain:
            way = choose_network(self.shape, cut.microbatch).way
        in_c = torch.tensor(float(way == IN_C), device=self.ranks.device)
        self._compute(IN_C if self.ranks.max(in_c) else IN_TORCH)

    def _go_on_with(self, note: str | None) -> None:
        """Compute the network as the run did so far; where that cannot be it is said."""
        lacking = self.ranks.device.type == "cpu" and network_kernel() is None
        if note == IN_C and lacking and self.ranks.first:
            print(
                "train: its network was computed in C, which is not to be had here: the last "
                "digits are torch's from here on", file=sys.stderr,
            )  # fmt: skip
        self._compute(IN_TORCH if lacking else noted_network(note, self.shape))

    def _compute(self, way: str) -> None:
        self.way = way
        self.network.in_c = way == IN_C

    def _go_on_from(self, devices: list[str]) -> None:
        """Note where the run trained so far; another kind of device is said."""
        here = self.ranks.kind
        if devices[-1] != here and self.ranks.first:
            print(
                f"train: was trained on {devices[-1]} and goes on on {here}: the last digits are "
                "those of another device from here on", file=sys.stderr,
            )  # fmt: skip
        self.devices = devices if devices[-1] == here else [*devices, here]
