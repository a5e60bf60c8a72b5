"""Speed and memory of training: python benchmarks/train.py peer|table [--out FILE.csv].

peer   images/s of one run at the digits study's second-largest size, beside diffusers' DiT of the
       same depth, width and heads in a plain loop (needs the package diffusers), taking turns in
       one process; ours has its EMA and telemetry besides. By the clock, and by processor time,
       which counts less of what else the machine does
table  images/s, FLOP/s, MFU and memory of the six sizes at 256 tokens, trick by trick, and of
       diffusers' DiT if it is installed. On a GPU:        python benchmarks/train.py table
       one real step of 120M on a CPU:
           python benchmarks/train.py table --device cpu --sizes dit-120m --batch 2 --tricks fp32
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from jstar.config import Study
from jstar.data import prepare
from jstar.hardware import cpu_name
from jstar.model import SIZES, DiTConfig, fast_network
from jstar.records import provenance, write_table
from jstar.train.loop import run_chunk
from jstar.train.memory import keep_freed_memory
from jstar.train.parallel import Ranks
from jstar.train.run import Run

ROOT = Path(__file__).resolve().parents[1]
BATCH = {"dit-120m": 512, "dit-206m": 512, "dit-367m": 256, "dit-596m": 256, "dit-905m": 128,
         "dit-1.5b": 128}  # fmt: skip
TRICKS = {
    "fp32": {"precision": "fp32", "compile": False},
    "bf16": {"precision": "bf16", "compile": False},
    "bf16, compiled": {"precision": "bf16", "compile": True},
    "bf16, compiled, unfused AdamW": {"precision": "bf16", "compile": True},
    "bf16, compiled, mapped data": {"precision": "bf16", "compile": True},
}
Step = Callable[[int], None]  # does that many steps and waits for the device


def our_step(run: Run) -> Step:
    """The whole loop: data, noise, gradients, clipping, AdamW, EMA, loss bins."""

    def step(count: int) -> None:
        run_chunk(run, run.step + count)

    return step


def torch_step(run: Run) -> Step:
    """The same on a machine without a C compiler."""

    def step(count: int) -> None:
        before, os.environ["JSTAR_NATIVE"] = os.environ.get("JSTAR_NATIVE", "1"), "0"
        fast_network.network_kernel.cache_clear()
        run_chunk(run, run.step + count)
        os.environ["JSTAR_NATIVE"] = before
        fast_network.network_kernel.cache_clear()

    return step


def peer_step(
    config: DiTConfig, batch: int, device: str, bf16: bool, images: torch.Tensor,
    fused: bool | None = None,
) -> Step:  # fmt: skip
    """diffusers' DiT of the same size in the loop its users write; no EMA, no telemetry."""
    from diffusers import DiTTransformer2DModel

    network = DiTTransformer2DModel(
        num_attention_heads=config.heads, attention_head_dim=config.width // config.heads,
        in_channels=config.channels, out_channels=config.channels, num_layers=config.depth,
        sample_size=config.rows, patch_size=config.patch, num_embeds_ada_norm=1000,
    ).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=fused)

    def step(count: int) -> None:
        for _ in range(count):
            x0 = images[torch.randint(len(images), (batch,), device=device)]
            sigma = torch.exp(torch.randn(batch, device=device) * 1.2 - 1.2)[:, None, None, None]
            x = x0 + sigma * torch.randn_like(x0)
            scale = (sigma**2 + 0.25).sqrt()
            labels = torch.zeros(batch, dtype=torch.long, device=device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
                time_B = sigma.flatten().log() * 250
                out = network(x / scale, timestep=time_B, class_labels=labels).sample
            target = (x0 - x * 0.25 / scale**2) * scale / (sigma * 0.5)
            loss = (out.float() - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return step


def plain_adamw(run: Run) -> None:
    """Replace the fused update by a loop over tensors, to see what fusing is worth."""
    adam = torch.optim.AdamW(run.named.values(), lr=1e-4, foreach=False, fused=False)

    def step(rate: float) -> None:
        torch.nn.utils.clip_grad_norm_(run.named.values(), run.config.clip_norm)
        adam.step()
        adam.zero_grad()

    run.optimizer.step = step  # type: ignore[method-assign]


def make_run(tree: dict[str, Any], folder: Path, device: str) -> Run:
    """A run of the first size of a study."""
    study = Study.parse(tree)
    data = folder / study.dataset.name
    if not (data / "card.json").exists():
        prepare(study.dataset, data)
    ranks = Ranks(0, 1, torch.device(device))
    return Run(study, study.ladder[0].name, 0, data, folder / "state", ranks)


def seconds(step: Step, count: int) -> tuple[float, float]:
    """Seconds of one step, over `count`: of the clock, and of this process' processors."""
    start, used = time.perf_counter(), time.process_time()
    step(count)
    return (time.perf_counter() - start) / count, (time.process_time() - used) / count


def peer(rounds: int, count: int, threads: int) -> list[dict[str, Any]]:
    """Ours and diffusers' in turns, on the digits."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as a run of ours does; it helps both
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    tree["ladder"] = [tree["ladder"][-2]]
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(tree, Path(folder), "cpu")
        images = torch.from_numpy(run.dataset.scaled(slice(None)))
        batch = run.config.batch
        steps = {
            "diffusers": peer_step(run.shape, batch, "cpu", False, images),
            "diffusers, fused AdamW": peer_step(run.shape, batch, "cpu", False, images, True),
            "jstar": our_step(run),
            "jstar, without a compiler": torch_step(run),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for step in steps.values():
            step(4)
        for _ in range(rounds):
            for name, step in steps.items():
                times[name].append(seconds(step, count))
    medians = {name: np.median(values, axis=0) for name, values in times.items()}
    return [
        {
            "size": f"depth {run.shape.depth}, width {run.shape.width}",
            "what": name,
            "images_per_second": batch / wall,
            "images_per_cpu_second": batch / cpu,
            "times_diffusers": medians["diffusers"][0] / wall,
            "times_diffusers_cpu": medians["diffusers"][1] / cpu,
        }
        for name, (wall, cpu) in medians.items()
    ]


def table(sizes: list[str], tricks: list[str], batch: int | None, device: str, count: int) -> Any:
    """Every size with every trick, at 256 tokens (64 x 64 x 3, patch 4)."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = np.random.default_rng(0).integers(0, 256, (2048, 64, 64, 3), dtype=np.uint8)
        np.savez(folder / "noise.npz", images=pixels)
        for size in sizes:
            for trick in [*tricks, "diffusers"]:
                rows.append(_row(size, trick, batch or BATCH.get(size, 64), device, count, folder))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _row(
    size: str, trick: str, batch: int, device: str, count: int, folder: Path
) -> dict[str, Any]:
    depth, width = SIZES[size] if size in SIZES else (int(size), 64 * int(size))
    options = TRICKS.get(trick, TRICKS["bf16" if device.startswith("cuda") else "fp32"])
    tree = {
        "study": "bench",
        "dataset": {"name": "noise", "source": "npz", "path": str(folder / "noise.npz")},
        "model": {"patch": 4},
        "ladder": [{"name": "x", "depth": depth, "width": width}],
        "train": {"images": 10**9, "batch": batch, "first_snapshot": 10**9, "snapshots": 1,
                  **options},
    }  # fmt: skip
    row: dict[str, Any] = {"size": size, "trick": trick, "batch": batch}
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        run = make_run(tree, folder, device)
        step = our_step(run)
        if trick == "diffusers":
            images = torch.from_numpy(run.dataset.scaled(slice(None))).to(device)
            step = peer_step(run.shape, batch, device, options["precision"] == "bf16", images)
            run.optimizer = run.ema = run.objective = run.named = None  # type: ignore[assignment]
        elif "unfused" in trick:
            plain_adamw(run)
        elif "mapped" in trick:
            run.stream.images.resident = None  # as with train.resident: false
        step(2)
        once, _ = seconds(step, count)
    except ImportError:
        return {**row, "failed": "diffusers is not installed"}
    except torch.OutOfMemoryError:
        return {**row, "failed": "out of memory"}
    rate = batch * run.train_flops / once
    run.speed.record(0)
    return {
        **row,
        "images_per_second": batch / once,
        "flops_per_second": rate,
        "peak_flops": run.speed.peak,
        "mfu": rate / run.speed.peak,
        "peak_memory_gib": run.speed.rows[-1].peak_memory / 2**30,
    }


def device_name(args: argparse.Namespace) -> str:
    """The GPU's name, or the processor's."""
    if args.what == "table" and args.device.startswith("cuda"):
        return torch.cuda.get_device_name(args.device)
    return cpu_name()


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=["peer", "table"])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="names, or depths")
    parser.add_argument("--tricks", nargs="*", default=list(TRICKS), choices=list(TRICKS))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="peer: CPU threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="also write the table there, provenance beside it")
    args = parser.parse_args()
    if args.what == "peer":
        rows = peer(args.rounds, args.steps, args.threads)
    else:
        rows = table(args.sizes, args.tricks, args.batch, args.device, args.steps)
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.4g"))
    if args.out:
        command = " ".join(["python benchmarks/train.py", *sys.argv[1:]])
        facts = provenance(command=command, device=device_name(args), torch=torch.__version__)
        write_table(args.out, pd.DataFrame(rows), facts)


if __name__ == "__main__":
    main()
