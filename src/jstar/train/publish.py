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

from jstar.errors import JstarError
from jstar.manifest import parents
from jstar.model import flops, parameters
from jstar.records import (
    facts_beside,
    fingerprint,
    made_by,
    provenance,
    read_json,
    require_intact,
    sha256_of,
    write_json,
    write_record,
    write_table,
)
from jstar.train.run import BRANCHES, CHECKPOINTS, Run
from jstar.train.snapshots import FOLDER, cooldown_file, snapshot_file
from jstar.train.writer import FOLDERS as WRITER_FOLDERS

OLD, NEW = f".{FOLDER}.old", f".{FOLDER}.new"  # beside the folder that is swapped
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
    aside.mkdir(exist_ok=True)
    for part in (CHECKPOINTS, FOLDER, *WRITER_FOLDERS, PUBLISHED):  # the marker last
        if (run.state / part).exists():
            if (aside / part).is_dir():  # of an earlier run of that configuration
                shutil.rmtree(aside / part)
            (run.state / part).rename(aside / part)
    print(f"train: the finished run of another configuration is now in {aside}", file=sys.stderr)


def require_snapshots(run: Run, out: Path) -> None:
    """Raise JstarError if one that the run has behind it is lost or damaged, before it goes on."""
    if (out / OLD).is_dir() and not (out / FOLDER).exists():
        (out / OLD).rename(out / FOLDER)  # killed between the two renames of `publish`
    for index, step in enumerate(run.events.snapshots):
        if step <= run.step:
            _whole(run, out, snapshot_file(run.state, index))


def publish(run: Run, out: Path) -> None:
    """Write snapshots/, telemetry.csv, speed.csv and run.json of a finished run to `out`.

    snapshots/ also holds the ends of its cooldowns; the other files are of the run itself. A run
    that is published already stays until all of the new one is there, and then the folders swap.
    Raises JstarError, with nothing changed, where a snapshot is lost or damaged.
    """
    old, new = out / OLD, out / NEW
    files = [snapshot_file(run.state, index) for index in range(len(run.events.snapshots))]
    files += [cooldown_file(run.state, branch.index) for branch in run.events.branches]
    whole = [_whole(run, out, file) for file in files]
    for left in (old, new):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    for file in whole:
        _link(file, new / file.name)
    if (out / FOLDER).exists():
        (out / FOLDER).rename(old)
    new.rename(out / FOLDER)
    _write_record(run, out, [out / FOLDER / file.name for file in files])
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(run.state / BRANCHES, ignore_errors=True)
    write_json(run.state / PUBLISHED, {"fingerprint": fingerprint(run.identity)})


def _whole(run: Run, out: Path, file: Path) -> Path:
    """A snapshot of the run's state; where that is lost or damaged, the one published before."""
    found = f"{file}: is missing"
    try:
        require_intact(file)
        if file.is_file():
            return file
    except JstarError as error:
        found = str(error)
    published, record = out / FOLDER / file.name, out / "run.json"
    try:
        same = facts_beside(record).get("fingerprint") == fingerprint(run.identity)
        require_intact(published, record)
        if same and f"{FOLDER}/{file.name}" in made_by(record):
            return published
    except JstarError:
        pass  # no better than the one in the state
    raise JstarError(
        f"{found}, and {out} holds no whole copy of it; nothing was changed, remove {run.state} to "
        "train the run anew"
    )


def _write_record(run: Run, out: Path, networks: list[Path]) -> None:
    """The tables of a run and, last, run.json."""
    facts = provenance(
        card_id=run.dataset.card.id, fingerprint=fingerprint(run.identity), seed=run.seed,
        run=out.name, **parents(out / "run.json", [run.data / "card.json"]),
    )  # fmt: skip
    write_table(out / "telemetry.csv", run.bins.frame(), facts)
    speed = pd.DataFrame([asdict(row) for row in run.speed.rows])
    write_table(out / "speed.csv", speed, facts)
    law = run.noise_law.frame()
    if law is not None:
        write_table(out / "noise_law.csv", law, facts)
    write_record(out / "run.json", {**facts, **_facts(run)}, networks)


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
        "devices": run.devices,
        "block": run.way,
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
    """A second name for a file; a copy where the file system has no links. Raises JstarError."""
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise JstarError(f"{target}: cannot be written ({error.strerror})") from error
        if sha256_of(target) != sha256_of(source):
            raise JstarError(f"{target}: was damaged while it was copied from {source}") from None
