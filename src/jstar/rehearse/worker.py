"""The processes of a rehearsal: `python -m jstar.rehearse.worker PHASE ORDERS`.

train is killed while it trains; resume goes on from its checkpoint; evaluate and golden are alone.
"""

import hashlib
import math
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from jstar.data import open_dataset
from jstar.errors import JstarError
from jstar.evaluate import measure
from jstar.hardware import cpu_name
from jstar.model import DiT, DiTConfig
from jstar.noise import gaussian
from jstar.pool import cpu_count, end_with_parent
from jstar.records import read_json, write_json
from jstar.rehearse.golden import golden, inputs_file, keep_inputs, open_weights
from jstar.rehearse.orders import (
    OPENING,
    PARTS,
    EvaluateReport,
    Orders,
    ResumeReport,
    TrainReport,
)
from jstar.torch_device import default_device
from jstar.train.loop import run_chunk
from jstar.train.memory import keep_freed_memory
from jstar.train.parallel import Ranks, deterministic_kernels, join_ranks, whole
from jstar.train.run import CHECKPOINTS, Run
from jstar.train.snapshots import denoiser_of, snapshot_file, tensor_key

EVALUATE_SECONDS = 3.0  # for the batch that is timed
FIRST_DRAWS = 4  # of a batch that says how large the timed one may be
LONGEST = 600.0  # seconds that a process waits for its end by the parent


@contextmanager
def built(orders: Orders) -> Iterator[tuple[Run, float | None]]:
    """The run as `jstar train` builds it, and this process' memory before (None on a GPU)."""
    study = orders.checked
    if orders.threads is not None:
        torch.set_num_threads(orders.threads)
    with ExitStack() as stack:
        ranks = stack.enter_context(join_ranks(orders.device, study.train.rank_timeout_minutes))
        stack.enter_context(deterministic_kernels(study.train.deterministic))
        if ranks.device.type == "cpu":
            keep_freed_memory()
        before = None if ranks.device.type == "cuda" else _status("VmRSS")
        curve = None if orders.curve is None else Path(orders.curve)
        run = Run(study, orders.model, orders.seed, Path(orders.data), orders.state, ranks, curve)
        stack.enter_context(run.saver)
        run.choose_network()
        yield run, before


def train_and_wait(orders: Orders) -> None:
    """Train, save, train on, tell, and train on until the parent kills this process."""
    with built(orders) as (run, before):
        room = (run.events.steps - OPENING) // (PARTS + 1)
        if room < 1:
            raise JstarError(
                f"{orders.model}: a run of {run.events.steps} steps is too short to be rehearsed, "
                f"at least {OPENING + PARTS + 1} are needed"
            )
        open_weights(run)
        losses, norm, second = _opening(run, orders)
        most = min(room, run.events.chunk_steps)
        wanted = int(orders.part_seconds / max(second, 1e-9))
        steps = _agree(run.ranks, max(1, min(most, wanted)))
        seconds = []
        for _ in range(PARTS):
            begun = time.perf_counter()
            losses.append(run_chunk(run, run.step + steps))
            seconds.append(time.perf_counter() - begun)
        memory = _peak(run.ranks, before)
        saved = _saved(run)
        losses.append(run_chunk(run, run.step + steps))
        told = {
            "kind": device_kind(run.ranks.device), "device": run.ranks.device.type,
            "world": run.ranks.world, "threads": torch.get_num_threads(),
            "shape": asdict(run.shape), "cut": asdict(run.cut),
            "image_bytes": run.load.image_bytes, "chunk_bytes": run.load.chunk_bytes,
            "part_steps": steps,
            "images_per_second": steps * run.config.batch / statistics.median(seconds),
            "memory": memory, "compile_seconds": run.speed.facts()["compiling"],
            "losses": _means(run.ranks, losses), "gradient_norm": norm, **saved,
            "planned_save_bytes": run.save_bytes, "digests": state_digests(run),
        }  # fmt: skip
        if run.ranks.first:
            write_json(orders.file("train.json"), asdict(TrainReport(**told)))
        begun = time.monotonic()
        while time.monotonic() - begun < LONGEST:
            if run.step + steps <= run.events.steps:
                run_chunk(run, run.step + steps)
            else:
                time.sleep(0.1)


def _opening(run: Run, orders: Orders) -> tuple[list[float], float, float]:
    """The first steps, one by one: losses, the first gradient norm, seconds of the last."""
    errors: list[Tensor] = []
    hook = run.objective.register_forward_hook(lambda module, given, out: errors.append(out[1]))
    chunks, losses, norm, seconds = [], [], math.nan, math.nan
    for k in range(OPENING):
        chunks.append(run.stream.chunk(k, k + 1))
        begun = time.perf_counter()
        losses.append(run_chunk(run, k + 1))
        seconds = time.perf_counter() - begun
        if k == 0:
            hook.remove()
            norm = run.optimizer.take_norms()[1]
    share = run.load.share  # DDP's settling pass came before it, with the same errors
    keep_inputs(orders.file(inputs_file(run.ranks.rank)), chunks, torch.cat(errors)[:share])
    return losses, norm, seconds


def _saved(run: Run) -> dict[str, float]:
    """Seconds and bytes of a checkpoint and of a snapshot."""
    found: dict[str, float] = {}
    for what, write in (("save", run.save), ("snapshot", lambda: run.write_snapshot(0))):
        begun = time.perf_counter()
        write()
        run.wait_for_saves()
        found[f"{what}_seconds"] = time.perf_counter() - begun
    checkpoint = list((run.state / CHECKPOINTS).glob("*.safetensors"))  # of every rank
    files = {"save": checkpoint, "snapshot": [snapshot_file(run.state, 0)]}
    for what, paths in files.items():
        found[f"{what}_bytes"] = float(sum(path.stat().st_size for path in paths))
    return found


def resume(orders: Orders) -> ResumeReport:
    """Go on from the checkpoint of the killed run, as far as that had come."""
    told = TrainReport(**read_json(orders.file("train.json")))
    with built(orders) as (run, _):
        run.restore()
        step = run.step
        loss = run_chunk(run, step + told.part_steps)
        losses, digests = _means(run.ranks, [loss]), state_digests(run)
        first = run.ranks.first
    return ResumeReport(step, losses[0], digests) if first else ResumeReport(step, None, {})


def state_digests(run: Run) -> dict[str, str]:
    """sha256 of every tensor of a run's whole state; empty on all ranks but the first."""
    found = {}
    for name, (part, like) in run.parts().items():
        full = whole(part, like)
        if run.ranks.first:
            found[name] = _sha256(full)
    rest = run.rest()
    if run.ranks.first:
        found |= {name: _sha256(tensor) for name, tensor in rest.items()}
    return found


def _sha256(tensor: Tensor) -> str:
    data: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(data).hexdigest()


def evaluate_snapshot(orders: Orders) -> EvaluateReport:
    """Time some draws at one noise scale through the snapshot's network, as evaluate does."""
    study = orders.checked
    told = TrainReport(**read_json(orders.file("train.json")))
    device = default_device(orders.device)
    if orders.threads is not None:
        torch.set_num_threads(orders.threads)
    with torch.device("meta"):
        network = DiT(DiTConfig(**told.shape))
    stored = load_file(snapshot_file(orders.state, 0))
    length = study.train.ema[0]
    weights = {n: stored[tensor_key(length, n)] for n, _ in network.named_parameters()}
    network.load_state_dict(weights, strict=True, assign=True)
    network.place_positions("cpu")
    network = network.to(device).eval().requires_grad_(False)
    process = study.train_of(orders.model).make_process()
    denoise = denoiser_of(network, process, bf16=study.evaluate.precision == "bf16")
    dataset = open_dataset(orders.data, verify=False)
    labels_N = dataset.labels_for(study.conditional)

    def seconds(count: int) -> float:
        index = np.arange(count) % len(dataset)
        x0 = dataset.scaled(index)
        noise = gaussian(study.evaluate.seed, np.arange(count), dataset.card.dim)
        labels = None if labels_N is None else labels_N[index]
        begun = time.perf_counter()
        measure(
            denoise, x0, noise.reshape(x0.shape), np.array([1.0]), labels_M=labels,
            batch=study.evaluate.batch, device=device,
        )  # fmt: skip
        return time.perf_counter() - begun

    most = min(study.evaluate.batch, study.evaluate.queries)
    few = min(FIRST_DRAWS, most)
    seconds(few)
    count = max(few, min(most, int(few * EVALUATE_SECONDS / seconds(few))))
    seconds(count)
    return EvaluateReport(seconds(count) / count, count)


def device_kind(device: torch.device) -> str:
    """The hardware that numbers are measured on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def _agree(ranks: Ranks, steps: int) -> int:
    """The fewest that any rank proposes."""
    least = torch.tensor(-float(steps), dtype=torch.float64, device=ranks.device)
    return -int(ranks.max(least))


def _means(ranks: Ranks, losses: list[float]) -> list[float]:
    """Over all ranks, whose shares are equal."""
    total = ranks.sum(torch.tensor(losses, dtype=torch.float64, device=ranks.device))
    return [float(value) for value in (total / ranks.world).tolist()]


def _peak(ranks: Ranks, before: float | None) -> float | None:
    """Bytes: on a GPU of tensors at their fullest, on a CPU what the process grew by."""
    if ranks.device.type == "cuda":
        used = float(torch.cuda.max_memory_allocated(ranks.device))
    else:
        highest = _status("VmHWM")
        if highest is None or before is None:
            return None
        used = highest - before
    return float(ranks.max(torch.tensor(used, dtype=torch.float64, device=ranks.device)))


def _status(key: str) -> float | None:
    """Bytes of a line of /proc/self/status, None where the system has none.

    Not getrusage: its peak is inherited from the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024.0 * float(values[0]) if values else None


def do_phase(phase: str, path: str) -> None:
    """Do one phase and write its report."""
    end_with_parent()
    orders = Orders.read(Path(path))
    report: Any
    if phase == "train":
        train_and_wait(orders)
        return
    if phase == "resume":
        report = resume(orders)
        if not report.digests:
            return  # not the first rank
    elif phase == "evaluate":
        report = evaluate_snapshot(orders)
    else:
        torch.set_num_threads(cpu_count())
        report = golden(orders, TrainReport(**read_json(orders.file("train.json"))))
    write_json(orders.file(f"{phase}.json"), asdict(report))


if __name__ == "__main__":
    try:
        do_phase(*sys.argv[1:])
    except JstarError as error:
        print(f"jstar: {error}", file=sys.stderr)
        raise SystemExit(2) from None
