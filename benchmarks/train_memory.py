"""Does a rank's own memory grow with the dataset? python benchmarks/train_memory.py [--steps 320].

Two real ranks (gloo) train a tiny network on random batches of 10,000 and of 1,281,167 images of
3 x 64 x 64 bytes, labelled, and tell what of their memory is their own (`private`: written to, in
/proc/self/smaps_rollup) and what is mapped from files and may be dropped by the system at any time
(`mapped`). The images are a file of zeros that takes no disk. As a check of the meter two ranks
also train from copies of the images in their own memory, which is how it was once. The row of 8
ranks is computed from those of 2. Writes train_memory.csv; exit status 1 where `private` grows by
more than the two permutations and the labels that a rank holds, or where the meter sees no copy.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jstar.config import Study
from jstar.data.card import Card
from jstar.data.sources.base import PIXEL_OFFSET, PIXEL_SCALE
from jstar.records import provenance, write_table

ROOT = Path(__file__).resolve().parents[1]
FEW, COPIED, IMAGENET = 10_000, 40_000, 1_281_167
SHAPE, CLASSES = (3, 64, 64), 1000
RANKS, NODE = 2, 8
INDEX_BYTES = 3 * 8  # an image: its place in two epochs' permutations, and its label
SLACK = 32e6  # bytes: two starts of one process differ by less
CHANGES = {
    "model": {"patch": 16}, "ladder": [{"name": "d1", "depth": 1, "width": 64}],
    "train": {"precision": "fp32", "compile": False, "batch": 32, "images": 10**8},
    "resources": {"train_gpus": 0, "verify_arrays": False},
}  # fmt: skip


def write_images(folder: Path, count: int) -> None:
    """A dataset as prepare writes it, of black images that take no room."""
    folder.mkdir(parents=True)
    np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(count, *SHAPE)
    ).flush()
    np.save(folder / "labels.npy", np.arange(count, dtype=np.int64) % CLASSES)
    Card(
        name="zeros", source="zeros", count=count, shape=SHAPE, dtype="uint8",
        offset=PIXEL_OFFSET, scale=PIXEL_SCALE, classes=CLASSES, mirror=False, holdout=0,
        duplicates=0, mean=0.0, std=0.5, images_sha256="", labels_sha256="", license="none",
        citation="zeros",
    ).save(folder / "card.json")  # fmt: skip


def work(folder: Path, steps: int, copied: bool) -> None:
    """One rank."""
    import torch

    from jstar.train.loop import run_chunk
    from jstar.train.parallel import join_ranks
    from jstar.train.run import Run

    torch.set_num_threads(1)
    study = Study.load(folder / "study.json")
    with join_ranks("cpu") as ranks:
        run = Run(study, "d1", 0, folder / "data", folder / "state", ranks)
        if copied:
            run.stream.images.stored = np.array(run.stream.images.stored)
        while run.step < steps:
            run_chunk(run, min(steps, run.events.border(run.step)))
        ranks.barrier()
        told = {"rank": ranks.rank, "images_read": steps * run.load.share, **memory()}
    (folder / f"{ranks.rank}.json").write_text(json.dumps(told))


def memory() -> dict[str, float]:
    """MB of this process: its own, mapped from files, and what it would give back if it ended."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free is no rank's need
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    private = found["Private_Dirty"] + found["Swap"]
    return {
        "private_mb": private / 1e6, "mapped_mb": (found["Rss"] - found["Anonymous"]) / 1e6,
        "uss_mb": (private + found["Private_Clean"]) / 1e6,
    }  # fmt: skip


def measure(count: int, steps: int, *, copied: bool = False) -> list[dict[str, Any]]:
    """A row a rank."""
    tree = Study.load(ROOT / "config" / "imagenet64.yaml").model_dump(mode="json")
    for part, keys in CHANGES.items():
        tree[part] = {**tree[part], **keys} if isinstance(keys, dict) else keys
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "data", count)
        (folder / "study.json").write_text(json.dumps(tree))
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
        more = [__file__, "--rank-of", name, "--steps", str(steps), *["--copied"] * copied]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *torchrun, *more], check=True, env=environment)
        told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]
    how = "copied by each rank" if copied else "mapped"
    stored = count * float(np.prod(SHAPE)) / 1e6
    return [
        {"images": count, "dataset_mb": stored, "store": how, "ranks": RANKS, "how": "measured"}
        | row
        for row in told
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "benchmarks")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--copied", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of is not None:
        work(options.rank_of, options.steps, options.copied)
        return
    few, many = (measure(count, options.steps) for count in (FEW, IMAGENET))
    copied = measure(COPIED, options.steps, copied=True)

    def private(rows: list[dict[str, Any]]) -> Any:
        return 1e6 * np.array([row["private_mb"] for row in rows])

    node = {
        **many[0], "ranks": NODE, "rank": None, "how": "computed", "mapped_mb": None,
        "uss_mb": None, "private_mb": NODE * private(many).max() / 1e6,
    }  # fmt: skip
    frame = pd.DataFrame([*few, *many, *copied, node])
    command = f"python benchmarks/train_memory.py --steps {options.steps}"
    note = "the row of 8 ranks is computed: 8 times the fullest rank of 2"
    write_table(options.out / "train_memory.csv", frame, provenance(command=command, note=note))
    print(frame.to_string())
    growth, seen = (private(many) - private(few)).max(), (private(copied) - private(few)).min()
    allowed, copy = INDEX_BYTES * IMAGENET + SLACK, float(COPIED * np.prod(SHAPE))
    print(f"grew by {growth / 1e6:.1f} MB, {allowed / 1e6:.1f} allowed; a copy of "
          f"{copy / 1e6:.0f} MB is seen as {seen / 1e6:.0f}")  # fmt: skip
    sys.exit(bool(growth > allowed or seen < 0.9 * copy))


if __name__ == "__main__":
    main()
