"""A finished run is brought to its declared place, run.json last."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from jstar.model import flops, parameters
from jstar.records import fingerprint, provenance, write_json, write_table
from jstar.train.run import Run, process_facts
from jstar.train.snapshots import FOLDER, snapshot_file


def publish(run: Run, out: Path) -> None:
    """Write snapshots/, telemetry.csv, speed.csv and run.json of a finished run to `out`."""
    (out / "run.json").unlink(missing_ok=True)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    (out / FOLDER).mkdir(parents=True)
    for index in range(len(run.schedule.snapshots)):
        _link(snapshot_file(run.state, index), snapshot_file(out, index))
    facts = provenance(
        card_id=run.dataset.card.id, fingerprint=fingerprint(run.identity), seed=run.seed
    )
    write_table(out / "telemetry.csv", run.bins.frame(), facts)
    speed = pd.DataFrame([asdict(row) for row in run.speed.rows])
    write_table(out / "speed.csv", speed, facts)
    write_json(out / "run.json", {**facts, **_facts(run)})


def _facts(run: Run) -> dict[str, Any]:
    speed = run.images / run.speed.seconds
    memory = max(row.peak_memory for row in run.speed.rows)
    return {
        "study": run.study.study,
        "model": run.model,
        "config": json.loads(run.identity)["run"],
        "model_config": asdict(run.shape),
        "process": process_facts(run.config),
        "params": parameters(run.shape),
        "flops_per_image": flops(run.shape),
        "train_flops_per_image": run.train_flops,
        "images": run.images,
        "flops": run.images * run.train_flops,
        "seconds": run.speed.seconds,
        "images_per_second": speed,
        "flops_per_second": speed * run.train_flops,
        "mfu": speed * run.train_flops / run.speed.peak,
        "peak_flops": run.speed.peak,
        "peak_memory": memory,
        "device": _device_name(run.ranks.device),
        "processes": run.ranks.world,
        "threads": torch.get_num_threads(),
        "skipped_steps": int(run.optimizer.skipped),
        "snapshots": [
            {
                "index": index,
                "images": step * run.schedule.batch,
                "flops": step * run.schedule.batch * run.train_flops,
            }
            for index, step in enumerate(run.schedule.snapshots)
        ],
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
