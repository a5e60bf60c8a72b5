"""A finished run is brought to its declared place, run.json last."""

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from jstar.model import flops, parameters
from jstar.records import fingerprint, provenance, read_json, write_json, write_table
from jstar.train.run import BRANCHES, CHECKPOINTS, Run
from jstar.train.snapshots import FOLDER, cooldown_file, snapshot_file
from jstar.train.writer import FOLDERS as WRITER_FOLDERS

PUBLISHED = "published.json"  # in the state folder of a run whose results are in place


def set_aside(run: Run) -> None:
    """Make room where `run`'s state folder holds a published run of another configuration.

    That run's state moves to a folder named by its fingerprint beside it: nothing is lost, and a
    changed study trains anew. A run that is not finished stays, and restoring it is refused.
    """
    marker = run.state / PUBLISHED
    if not marker.is_file():
        return
    old = str(read_json(marker)["fingerprint"])
    if old == fingerprint(run.identity):
        return
    aside = run.state.with_name(f"{run.state.name}.{old}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for part in (CHECKPOINTS, FOLDER, PUBLISHED, *WRITER_FOLDERS):
        if (run.state / part).exists():
            (run.state / part).rename(aside / part)
    print(f"train: the finished run of another configuration is now in {aside}", file=sys.stderr)


def publish(run: Run, out: Path) -> None:
    """Write snapshots/, telemetry.csv, speed.csv and run.json of a finished run to `out`.

    snapshots/ also holds the ends of its cooldowns; the other files are of the run itself.
    """
    (out / "run.json").unlink(missing_ok=True)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    (out / FOLDER).mkdir(parents=True)
    for index in range(len(run.events.snapshots)):
        _link(snapshot_file(run.state, index), snapshot_file(out, index))
    for branch in run.events.branches:
        _link(cooldown_file(run.state, branch.index), cooldown_file(out, branch.index))
    facts = provenance(
        card_id=run.dataset.card.id, fingerprint=fingerprint(run.identity), seed=run.seed
    )
    write_table(out / "telemetry.csv", run.bins.frame(), facts)
    speed = pd.DataFrame([asdict(row) for row in run.speed.rows])
    write_table(out / "speed.csv", speed, facts)
    law = run.noise_law.frame()
    if law is not None:
        write_table(out / "noise_law.csv", law, facts)
    write_json(out / "run.json", {**facts, **_facts(run)})
    shutil.rmtree(run.state / BRANCHES, ignore_errors=True)
    write_json(run.state / PUBLISHED, {"fingerprint": facts["fingerprint"]})


def _facts(run: Run) -> dict[str, Any]:
    speed = run.images / run.speed.seconds
    memory = max(row.peak_memory for row in run.speed.rows)
    return {
        "study": run.study.study,
        "model": run.model,
        "config": json.loads(run.identity)["run"],
        "model_config": asdict(run.shape),
        "process": run.config.process_facts(),
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
        "skipped_steps": int(run.optimizer.health[0]),
        "rollbacks": run.rollbacks,
        "left_out_steps": run.leap,
        "snapshots": [
            {
                "index": index,
                "images": step * run.events.batch,
                "flops": step * run.events.batch * run.train_flops,
            }
            for index, step in enumerate(run.events.snapshots)
        ],
        "cooldowns": [branch.index for branch in run.events.branches],
        "cooldown_images": run.events.total_images - run.images,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
