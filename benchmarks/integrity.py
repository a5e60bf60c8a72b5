"""What checking costs: reading a large array against sha256sum, and the share of a study's time.

    python benchmarks/integrity.py read --gigabytes 15.7 --folder /where/the/data/lie
    python benchmarks/integrity.py study results

`read` writes a dataset of random pixels, drops it from the page cache where it may (as root), and
times `open_dataset`, the check that every stage makes, and coreutils' sha256sum of the same file.
`study`: seconds to check every file below a folder of results once, `jstar verify`'s work; compare
it with the time that the study took.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.partial import ArrayWriter
from jstar.records import provenance, read_json, sealed, sha256_of, write_json
from jstar.verify import count_states, verify_folder

ROW = 3 * 64 * 64  # bytes of an image
BLOCK = 4096  # images written at a time


def large_dataset(folder: Path, gigabytes: float) -> Path:
    """A prepared dataset of so many bytes; its images.npy."""
    source = folder / "small.npz"
    np.savez(source, images=np.zeros((2, 64, 64, 3), np.uint8), labels=np.arange(2))
    prepare(DatasetConfig(name="large", source="npz", path=str(source)), folder / "data")
    count = int(gigabytes * 1e9) // ROW
    images, labels = folder / "data/images.npy", folder / "data/labels.npy"
    images.unlink()
    writer, draw = ArrayWriter(images, (count, 3, 64, 64), "uint8"), np.random.default_rng(0)
    block = draw.integers(0, 256, (BLOCK, 3, 64, 64), dtype=np.uint8)
    for at in range(0, count, BLOCK):
        writer.write(at, block[: count - at])
    writer.sync()
    writer.close()
    np.save(labels, np.zeros(count, np.int64))
    start = np.load(images, mmap_mode="r").offset
    card = folder / "data/card.json"
    facts = {**read_json(card), "count": count, "images_sha256": sha256_of(images, start)}
    facts["labels_sha256"] = sha256_of(labels, np.load(labels, mmap_mode="r").offset)
    write_json(card, sealed({**facts, "id": _id(facts)}))
    return images


def _id(facts: dict) -> str:
    """The id that the card's content gives, as its own error says it."""
    from jstar.data.card import Card

    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
    return Card(**{k: v for k, v in fields.items() if k not in ("id", "seal")}).id


def drop_caches(path: Path) -> None:
    """The file is read from the disk next time."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work: object) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read(gigabytes: float, folder: Path | None, out: Path | None) -> None:
    """Seconds of the check, of sha256sum and of reading alone."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        images = large_dataset(Path(name), gigabytes)
        code = f"from jstar.data import open_dataset; open_dataset({str(images.parent)!r}"
        python = shutil.which("python") or "python3"
        calls = {
            "opened, not checked": [python, "-c", f"{code}, verify=False)"],
            "opened and checked": [python, "-c", f"{code})"],
            "sha256sum": ["sha256sum", str(images)],
            "cat": ["sh", "-c", f"cat {images} > /dev/null"],
        }
        seconds = {}
        for what, command in calls.items():
            drop_caches(images)
            seconds[what] = timed(lambda c=command: subprocess.run(c, check=True, stdout=-3))
            print(f"{what:<20}{seconds[what]:8.2f} s  {gigabytes / seconds[what]:6.2f} GB/s")
        open_dataset(images.parent)
    if out is not None:
        write_json(out, provenance(gigabytes=gigabytes, seconds=seconds, cpus=os.cpu_count()))


def study(results: Path) -> None:
    """Seconds to check everything below a folder once."""
    found: list = []
    seconds = timed(lambda: found.extend(verify_folder(results)))
    print(f"{seconds:.2f} s for {count_states(found)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    first = parts.add_parser("read")
    first.add_argument("--gigabytes", type=float, default=15.7)
    first.add_argument("--folder", type=Path)
    first.add_argument("--out", type=Path)
    second = parts.add_parser("study")
    second.add_argument("results", type=Path)
    asked = parser.parse_args()
    if asked.part == "read":
        read(asked.gigabytes, asked.folder, asked.out)
    else:
        study(asked.results)
