"""Resumable checkpoints: written whole, checked when read, the newest two kept.

A checkpoint is NAME.safetensors (tensors only, nothing executable) and, written after it, its
record NAME.json with size, checksum and the facts of the run. Without its record it does not
count.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jstar.errors import JstarError
from jstar.records import MADE, read_json, require_intact, sha256_of, write_record
from jstar.train.tensor_file import TensorFile

KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and facts: whatever JSON can hold."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, images: int, tensors: TensorFile, facts: dict[str, Any]) -> None:
    """Write the checkpoint at `images` images; removes older ones, all but `KEEP`."""
    path = folder / f"{images:015d}.safetensors"
    write_with_record(path, tensors, {**facts, "images": images})
    _sync_folder(folder)
    complete = sorted(folder.glob("[0-9]*.json"), reverse=True)
    for old in complete[KEEP:]:
        old.unlink()  # the marker first: tensors without a marker do not count
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    names = {marker.stem for marker in complete[:KEEP]}
    for orphan in folder.glob("*.safetensors"):  # left by a kill between tensors and marker
        if orphan.stem not in names:
            orphan.unlink()


def load_newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint, if any, and one sentence for each damaged one passed over."""
    complaints: list[str] = []
    for marker in sorted(folder.glob("[0-9]*.json"), reverse=True):
        path = marker.with_suffix(".safetensors")
        try:
            facts = read_json(marker)
            if "sha256" not in facts:
                require_intact(path)
            elif facts["sha256"] != sha256_of(path):  # of an older jstar
                raise JstarError(f"{path}: is damaged (its checksum differs from its marker's)")
            return Checkpoint(load_file(path), facts), complaints
        except (JstarError, OSError, SafetensorError) as error:
            complaints.append(str(error))
    return None, complaints


def require_unchanged(found: str, wanted: str, folder: Path) -> None:
    """Refuse to resume under another configuration: names every key that differs."""
    if found == wanted:
        return
    old, new = _flatten(json.loads(found)), _flatten(json.loads(wanted))
    missing = "(not there)"
    changes = [
        f"{key} was {old.get(key, missing)} and is {new.get(key, missing)}"
        for key in sorted({*old, *new})
        if old.get(key, missing) != new.get(key, missing)
    ]
    raise JstarError(
        f"{folder}: holds a run of another configuration ({'; '.join(changes)}); "
        "restore the study, or remove that folder to start anew"
    )


def write_with_record(path: Path, tensors: TensorFile, facts: dict[str, Any]) -> None:
    """Write tensors and then their record, which holds the sum of what was handed to the disk.

    The file is not read back: a damaged one is found where it is read. Raises JstarError.
    """
    made = {path.name: tensors.write(path)}
    write_record(path.with_suffix(".json"), {**facts, MADE: made})


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return out
