"""What the reference of `jstar rehearse` costs on this CPU: python benchmarks/rehearse_golden.py.

For each size of config/imagenet64.yaml the reference's process as the rehearsal starts it, with
made-up inputs: without time, when it takes one image, and with the --seconds that five minutes for
all sizes leave the largest. Writes rehearse_golden.csv: seconds of the whole process, its peak
memory, and how many images it compared.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from jstar.config import Study
from jstar.hardware import GIB
from jstar.model import flops, model_config, parameters
from jstar.pool import cpu_count
from jstar.records import provenance, read_json, write_json, write_table
from jstar.rehearse.golden import inputs_file, keep_inputs
from jstar.rehearse.orders import Orders, TrainReport
from jstar.train.chunk import Chunk
from jstar.train.objective import noise_scale

ROOT = Path(__file__).resolve().parents[1]
IMAGE, CLASSES = (3, 64, 64), 1000


def report_of(study: Study, model: str) -> TrainReport:
    """What training on GPUs would have told of the reference's shape; the rest is not read."""
    config = study.train_of(model)
    shape = model_config(study.model, study.entry(model), IMAGE, CLASSES)
    shape = replace(shape, noise_scale=noise_scale(config.make_process()))
    cut = {"microbatch": 1, "recompute": False, "shard": False, "resident": False}
    return TrainReport(
        "", "cuda", study.resources.processes, 1, asdict(shape), cut, 0.0, 0.0, 1, 1.0, None, 0.0,
        [1.0], None, 0.0, 0.0, 0.0, 0.0, 0.0, {},
    )  # fmt: skip


def write_inputs(path: Path, images: int) -> None:
    """One step of one process' share."""
    x_in, target = (torch.randn(1, images, *IMAGE) for _ in range(2))
    numbers = [torch.rand(1, images) for _ in range(4)]
    chunk = Chunk(x_in, target, *numbers, torch.randint(CLASSES, (1, images)))
    keep_inputs(path, [chunk], torch.ones(images))


def measure(study: Study, model: str, folder: Path, seconds: float) -> dict[str, Any]:
    """The reference of one size, in a process of its own."""
    orders = Orders(
        study.model_dump_json(), model, 0, "", None, str(folder), None, None, 0.0, seconds
    )
    report = report_of(study, model)
    write_inputs(
        orders.file(inputs_file(0)), study.train_of(model).batch // study.resources.processes
    )
    write_json(orders.file("train.json"), asdict(report))
    command = [sys.executable, "-m", "jstar.rehearse.worker", "golden", str(orders.write())]
    begun = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "JSTAR_NATIVE": "0"})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{model}: the reference ended with status {status}")
    images = read_json(orders.file("golden.json"))["images"]
    return {
        "images": images, "seconds": time.perf_counter() - begun,
        "gib": 1024 * usage.ru_maxrss / GIB,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=25)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "benchmarks")
    options = parser.parse_args()
    study, rows = Study.load(ROOT / "config" / "imagenet64.yaml"), []
    for entry in study.ladder:
        shape = model_config(study.model, entry, IMAGE, CLASSES)
        for seconds in (0.0, options.seconds):
            with tempfile.TemporaryDirectory() as folder:
                found = measure(study, entry.name, Path(folder), seconds)
            rows.append({
                "size": entry.name, "width": shape.width, "mparams": parameters(shape) / 1e6,
                "gflops": flops(shape) / 1e9, "asked_seconds": seconds, **found,
            })  # fmt: skip
            print(rows[-1], flush=True)
    command = "python benchmarks/rehearse_golden.py " + " ".join(sys.argv[1:])
    frame = pd.DataFrame(rows)
    write_table(
        options.out / "rehearse_golden.csv", frame, provenance(command=command, cores=cpu_count())
    )


if __name__ == "__main__":
    main()
