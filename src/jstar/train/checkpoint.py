"""Resumable checkpoints: written whole, checked when read, the newest two kept.

A checkpoint is NAME.safetensors (tensors only, nothing executable) and, written after it, its
marker NAME.json with size, checksum and the facts of the run. Without its marker it does not
count. Of a sharded model each rank writes its own NAME.RANK-of-RANKS.safetensors, and the marker
stands for all of them.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jstar.errors import JstarError
from jstar.records import MADE, made_by, read_json, require_as_made, sha256_of, write_record
from jstar.train.parallel import ALONE, Ranks
from jstar.train.tensor_file import TensorFile

KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, of each rank that wrote a part; and facts: whatever JSON can hold.

    What is not sharded lies in the first part alone. Nothing is read before it is asked for.
    """

    parts: list[dict[str, Tensor]]
    facts: dict[str, Any]

    def whole(self, name: str) -> Tensor:
        """A tensor: FSDP2 cuts along the first dimension."""
        found = [part[name] for part in self.parts if name in part]
        return found[0] if len(found) == 1 else torch.cat(found)


def write_part(
    folder: Path, images: int, tensors: TensorFile, ranks: Ranks | None = None
) -> dict[str, Any]:
    """Write the tensors of a checkpoint, or a rank's part; returns what its marker says of it."""
    of = "" if ranks is None else f".{ranks.rank + 1:04d}-of-{ranks.world:04d}"
    path = folder / f"{images:015d}{of}.safetensors"
    made = {path.name: tensors.write(path)}
    _sync_folder(folder)
    return made


def mark(folder: Path, images: int, facts: dict[str, Any], made: dict[str, Any]) -> None:
    """Make what was `made` the checkpoint at `images` images; removes older ones, all but `KEEP`.

    Other ranks may be writing the next one.
    """
    write_record(folder / f"{images:015d}.json", {**facts, "images": images, MADE: made})
    _sync_folder(folder)
    complete = sorted(folder.glob("[0-9]*.json"), reverse=True)
    for old in complete[KEEP:]:
        old.unlink()  # the marker first: tensors without a marker do not count
    kept = {marker.stem for marker in complete[:KEEP]}
    for file in folder.glob("[0-9]*.safetensors"):  # one that is written begins with a dot
        at = file.name.split(".")[0]
        if at < f"{images:015d}" and at not in kept:  # also what a kill left without a marker
            file.unlink()


def load_newest(folder: Path, ranks: Ranks = ALONE) -> tuple[Checkpoint | None, list[str]]:
    """The newest intact checkpoint, if any, and a sentence for each damaged file passed over.

    Each rank checks some of the files. All ranks must call it, and all get the same.
    """
    complaints: list[str] = []
    # One rank looks: a file system may show a new file to some nodes later than to others.
    for marker in ranks.gather(sorted(folder.glob("[0-9]*.json"), reverse=True))[0]:
        flaws: list[str] = []
        files = [marker.with_suffix(".safetensors")]
        try:
            facts = read_json(marker)
            made = made_by(marker)
            files = [folder / name for name in made] or files
            for file in files[ranks.rank :: ranks.world]:
                if made:
                    require_as_made(file, marker, made[file.name])
                elif facts.get("sha256", sha256_of(file)) != sha256_of(file):  # of an older jstar
                    raise JstarError(f"{file}: is damaged (its checksum differs from its marker's)")
                load_file(file)
        except (JstarError, OSError, SafetensorError) as error:
            flaws.append(str(error))
        flaws = list(dict.fromkeys(flaw for found in ranks.gather(flaws) for flaw in found))
        if not flaws:
            return Checkpoint([load_file(file) for file in files], facts), complaints
        complaints += flaws
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
