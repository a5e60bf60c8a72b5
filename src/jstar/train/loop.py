"""The train stage: one run, from its last checkpoint to its end or until it is asked to stop."""

import json
import os
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jstar.config import Study
from jstar.data import open_dataset
from jstar.errors import JstarError
from jstar.model import DiT, DiTConfig, flops, model_config, parameters
from jstar.noise import process
from jstar.progress import Progress
from jstar.records import fingerprint, provenance, write_json, write_table
from jstar.train.checkpoint import (
    Checkpoint,
    load_newest,
    require_unchanged,
    save_checkpoint,
    write_tensors,
)
from jstar.train.ema import PowerEMA
from jstar.train.objective import Objective, noise_scale
from jstar.train.optimizer import Optimizer, learning_rate
from jstar.train.parallel import Ranks, fill, join_ranks, local, spread, whole
from jstar.train.schedule import make_schedule
from jstar.train.snapshots import FOLDER, snapshot_file, tensor_key
from jstar.train.stop import Stop, listen
from jstar.train.stream import Chunk, Stream
from jstar.train.telemetry import LossBins, Speed, percentiles, speed_frame

EXIT_CONTINUE = 75  # EX_TEMPFAIL: not finished, start me again
MAX_SKIPPED = 3  # steps with a non-finite gradient before a run gives up
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainStatus:
    """How a call of `train` ended. `exit_code` is 0, or 75: start me again to continue."""

    finished: bool
    images: int
    reason: str

    @property
    def exit_code(self) -> int:
        """Exit status for the command line and the workflow."""
        return 0 if self.finished else EXIT_CONTINUE


def train(
    study: Study,
    model: str,
    seed: int,
    data: Path,
    out: Path,
    state: Path,
    *,
    device: str | None = None,
    threads: int | None = None,
) -> TrainStatus:
    """Train the ladder entry `model` with `seed` on the dataset in folder `data`.

    Resumes from the newest intact checkpoint in `state`, exactly. A finished run is published to
    `out`: snapshots/, telemetry.csv, speed.csv and, last, run.json. On SIGTERM, SIGUSR1 or SIGINT
    it writes a checkpoint and returns `finished=False`. Under torchrun all ranks call this.

    Raises JstarError if the state belongs to another configuration or dataset, if nothing can
    be written, and at the third step whose gradient is not finite.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    with listen() as stop, join_ranks(device) as ranks:
        run = _Run(study, model, seed, Path(data), Path(out), Path(state), ranks)
        run.restore()
        return run.go(stop)


class _Run:
    """Everything that one process holds of a run."""

    def __init__(
        self, study: Study, model: str, seed: int, data: Path, out: Path, state: Path, ranks: Ranks
    ) -> None:
        self.study, self.model, self.seed = study, model, seed
        self.out, self.state, self.ranks = out, state, ranks
        self.config = config = study.train
        if config.batch % ranks.world:
            raise JstarError(
                f"train.batch = {config.batch} is not a multiple of the {ranks.world} processes"
            )
        self.dataset = dataset = open_dataset(data)
        card = dataset.card
        self.process_facts = {
            "name": config.process, "sigma_data": config.sigma_data,
            "mean": config.noise_mean, "std": config.noise_std,
        }  # fmt: skip
        proc = process(**self.process_facts)  # type: ignore[arg-type]
        shape = model_config(study.model, study.entry(model), card.shape, card.classes)
        scale = noise_scale(proc)
        self.shape = DiTConfig(**{**asdict(shape), "noise_scale": scale})
        self.train_flops = 3 * flops(self.shape)
        self.schedule = make_schedule(config, self.train_flops, 4 * card.dim)
        self.stream = Stream(
            dataset, proc, seed, batch=config.batch, class_drop=study.model.class_drop,
            rank=ranks.rank, world=ranks.world, device=ranks.device,
        )  # fmt: skip
        self.bins = LossBins(proc, ranks.device)
        self._build(proc.learned_weight)
        self.step = 0
        self.seconds = 0.0  # of training, over all sessions
        self.speed: list[Speed] = []
        self.step_seconds: list[float] = []
        self.identity = json.dumps(
            {"run": json.loads(study.content("train", model)), "card": card.id, "seed": seed},
            sort_keys=True,
        )

    def _build(self, learned_weight: bool) -> None:
        """Network, optimiser and averages."""
        with torch.device("meta"):
            network = DiT(self.shape)
        network = network.to_empty(device="cpu")
        network.initialise(torch.Generator().manual_seed(self.seed))
        objective = Objective(network, learned_weight).to(self.ranks.device)
        bf16 = self.config.precision == "bf16"
        self.objective: nn.Module = spread(objective, self.ranks, shard=False, bf16=bf16)
        self.named = dict(objective.named_parameters())
        self.weights = [local(p) for p in self.named.values()]
        self.optimizer = Optimizer(self.weights, self.config)  # type: ignore[arg-type]
        # The averages leave out a learned loss weight: it is no part of the denoiser.
        self.network_names = [n for n in self.named if n.startswith("network.")]
        averaged = [local(self.named[n]) for n in self.network_names]
        self.ema = PowerEMA(averaged, self.config.ema)
        self.autocast = (
            torch.autocast(self.ranks.device.type, torch.bfloat16) if bf16 else nullcontext()
        )

    # -- the loop ------------------------------------------------------------------------------

    def go(self, stop: Stop) -> TrainStatus:
        """Train to the end, or until asked to stop."""
        name, batch, last = f"train {self.out.name}", self.config.batch, self.schedule.steps
        total = last * batch
        saved_at, saved_images = time.monotonic(), self.step * batch
        stream = sys.stderr if self.ranks.first else open(os.devnull, "w")  # noqa: SIM115
        with Progress(name, total, "images", stream) as progress:
            progress.resume(self.step * batch)
            while self.step < last:
                begin, start = self.step, time.perf_counter()
                loss = self._chunk(self.schedule.border(begin))
                self.seconds += time.perf_counter() - start
                if self.step in self.schedule.records:
                    self._record()
                if self.step in self.schedule.snapshots:
                    self._snapshot(self.schedule.snapshots.index(self.step))
                progress.advance((self.step - begin) * batch, f"loss {loss:.4f}")
                images = self.step * batch
                due = time.monotonic() - saved_at >= self.config.checkpoint_seconds or (
                    self.config.checkpoint_images is not None
                    and images - saved_images >= self.config.checkpoint_images
                )
                # Ranks must agree, or one waits for ever.
                wish = torch.tensor([float(due), float(stop.reason is not None)])
                due_any, stop_any = self.ranks.max(wish.to(self.ranks.device)).tolist()
                if due_any or stop_any or self.step == last:
                    self.save()
                    saved_at, saved_images = time.monotonic(), images
                if stop_any and self.step < last:
                    return TrainStatus(False, images, stop.reason or "another rank was stopped")
        if self.ranks.first:
            self.publish()
        self.ranks.barrier()
        return TrainStatus(True, total, "finished")

    def _chunk(self, border: int) -> float:
        """The steps up to `border`; returns their mean loss. The only sync is at the end."""
        chunk = self.stream.chunk(self.step, border)
        error_KB = torch.empty_like(chunk.weight)
        batch, width = self.config.batch, self.shape.width
        clock = time.perf_counter()
        for k in range(len(chunk.x_in)):
            error_KB[k] = self._gradient(chunk, k)
            self.step += 1
            self.optimizer.step(learning_rate(self.config, width, self.step * batch))
            self.ema.update(self.step)
            now = time.perf_counter()
            self.step_seconds.append(now - clock)
            clock = now
        self.bins.add(chunk, error_KB)
        mean = (chunk.weight * error_KB).mean()
        loss, skipped = torch.stack([mean, self.optimizer.skipped]).tolist()
        if skipped >= MAX_SKIPPED:
            raise JstarError(
                f"{self.state}: {skipped:.0f} steps had a loss or gradient that is not finite, the "
                f"latest before image {self.step * batch}; the last checkpoint is from before, "
                "lower train.learning_rate or train.clip_norm"
            )
        return float(loss)

    def _gradient(self, chunk: Chunk, k: int) -> Tensor:
        """Gradients of step k into `.grad`; returns the squared errors [B]."""
        labels = None if chunk.labels is None else chunk.labels[k]
        with self.autocast:
            loss, error_B = self.objective(
                chunk.x_in[k], chunk.c_noise[k], labels, chunk.target[k], chunk.weight[k]
            )
        loss.backward()
        done: Tensor = error_B
        return done

    def _record(self) -> None:
        """Telemetry rows of the stretch since the last record."""
        images = self.step * self.config.batch
        self.bins.record(images, self.ranks.sum(self.bins.sums))
        before = self.speed[-1] if self.speed else None
        seconds = self.seconds - (before.seconds if before else 0.0)
        speed = (images - (before.images if before else 0)) / seconds
        memory = (
            torch.cuda.max_memory_allocated() if self.ranks.device.type == "cuda" else _peak_rss()
        )
        p50, p95 = percentiles(self.step_seconds)
        self.step_seconds = []
        self.speed.append(
            Speed(
                images,
                self.seconds,
                speed,
                p50,
                p95,
                speed * self.train_flops,
                float("nan"),
                memory,
            )
        )

    # -- files ---------------------------------------------------------------------------------

    def _snapshot(self, index: int) -> None:
        """Write the averages of all lengths."""
        tensors = {
            tensor_key(length, name.removeprefix("network.")): whole(part, self.named[name])
            for length, parts in self.ema.averages.items()
            for name, part in zip(self.network_names, parts, strict=True)
        }
        if self.ranks.first:
            write_tensors(snapshot_file(self.state, index), tensors)

    def _parts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Everything to be saved that is as large as a weight: (local part, its parameter)."""
        out: dict[str, tuple[Tensor, Tensor]] = {}
        for k, (name, parameter) in enumerate(self.named.items()):
            out[f"weights/{name}"] = (self.weights[k], parameter)
            for key, values in self.optimizer.moments().items():
                if key != "step":
                    out[f"{key}/{name}"] = (values[k], parameter)
        for length, parts in self.ema.averages.items():
            for name, part in zip(self.network_names, parts, strict=True):
                out[f"ema/{length:g}/{name}"] = (part, self.named[name])
        return out

    def save(self) -> None:
        """Write a checkpoint of all ranks."""
        tensors = {key: whole(part, like) for key, (part, like) in self._parts().items()}
        tensors["adam_steps"] = self.optimizer.moments()["step"][0]
        tensors["skipped"] = self.optimizer.skipped
        tensors["bins"] = self.ranks.sum(self.bins.sums)
        tensors["records"] = torch.tensor(self.bins.rows, dtype=torch.float64)
        facts = {
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "speed": [asdict(row) for row in self.speed],
        }
        if self.ranks.first:
            images = self.step * self.config.batch
            save_checkpoint(self.state / CHECKPOINTS, images, Checkpoint(tensors, facts))
        self.ranks.barrier()

    @torch.no_grad()
    def restore(self) -> None:
        """Go on from the newest intact checkpoint, if there is one."""
        found, complaints = load_newest(self.state / CHECKPOINTS)
        if self.ranks.first:
            for complaint in complaints:
                print(f"train: {complaint}; trying the one before", file=sys.stderr)
        if found is None:
            return
        require_unchanged(found.facts["identity"], self.identity, self.state)
        for key, (part, like) in self._parts().items():
            fill(part, found.tensors[key], like)
        for steps in self.optimizer.moments()["step"]:
            steps.copy_(found.tensors["adam_steps"])
        self.optimizer.skipped.copy_(found.tensors["skipped"])
        if self.ranks.first:  # sums over ranks: only one may hold what was summed
            self.bins.sums.copy_(found.tensors["bins"])
        self.bins.rows = found.tensors["records"].tolist()
        self.step, self.seconds = found.facts["step"], found.facts["seconds"]
        self.speed = [Speed(**_with_nan(row)) for row in found.facts["speed"]]

    def publish(self) -> None:
        """Bring a finished run to its declared place; run.json comes last."""
        target = self.out / FOLDER
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for index in range(len(self.schedule.snapshots)):
            _link(snapshot_file(self.state, index), snapshot_file(self.out, index))
        facts = provenance(
            card_id=self.dataset.card.id, fingerprint=fingerprint(self.identity), seed=self.seed
        )
        write_table(self.out / "telemetry.csv", self.bins.frame(), facts)
        write_table(self.out / "speed.csv", speed_frame(self.speed), facts)
        write_json(self.out / "run.json", {**facts, **self._facts()})

    def _facts(self) -> dict[str, Any]:
        batch = self.config.batch
        images = self.schedule.steps * batch
        speed = images / self.seconds
        return {
            "study": self.study.study,
            "model": self.model,
            "config": json.loads(self.identity)["run"],
            "model_config": asdict(self.shape),
            "process": self.process_facts,
            "params": parameters(self.shape),
            "flops_per_image": flops(self.shape),
            "train_flops_per_image": self.train_flops,
            "images": images,
            "flops": images * self.train_flops,
            "seconds": self.seconds,
            "images_per_second": speed,
            "flops_per_second": speed * self.train_flops,
            "device": str(self.ranks.device),
            "processes": self.ranks.world,
            "threads": torch.get_num_threads(),
            "skipped_steps": int(self.optimizer.skipped),
            "snapshots": [
                {"index": k, "images": s * batch, "flops": s * batch * self.train_flops}
                for k, s in enumerate(self.schedule.snapshots)
            ],
        }


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _peak_rss() -> int:
    """Largest memory of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for it."""
    return {key: float("nan") if value is None else value for key, value in row.items()}
