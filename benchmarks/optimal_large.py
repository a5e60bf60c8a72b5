"""Memory and time of the exact estimator on data far larger than memory (ImageNet-64's size).

python benchmarks/optimal_large.py FOLDER OUT.csv [N] [DRAWS]     default: 1281167, 16
Writes N synthetic 8-bit images of 12,288 values (15.7 GB) to FOLDER and deletes them at the end.
Prints the peak anonymous memory of this process (the page cache is not in it) and the time. What
a further draw costs is measured on the first 8,192 points with 512 and 1,024 draws and scaled with
N; the time of 8,000 draws is extrapolated with it.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jstar.optimal import optimal_loss
from jstar.records import provenance, write_table

SIGMAS = np.geomspace(0.02, 80, 32)
SHAPE = (3, 64, 64)
TILE = 4096
GIB = 2**30
PART, PART_DRAWS = 8192, 512  # what a further draw costs, measured on the first points


class PeakMemory:
    """Largest anonymous resident memory, looked at every 50 ms. Use as a context."""

    def __enter__(self):
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.05):
            status = Path("/proc/self/status").read_text().split("RssAnon:")[1]
            self.bytes = max(self.bytes, int(status.split()[0]) * 1024)

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def write_images(path, count):
    """Shifted, brightened copies of one tile of smooth noise: 8-bit, all distinct in practice."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *SHAPE))
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (TILE, 3, 8, 8), dtype=np.uint8)
    fine = coarse.repeat(8, axis=2).repeat(8, axis=3)
    for k, first in enumerate(range(0, count, TILE)):
        part = out[first : first + TILE]
        part[:] = np.roll(fine, (k % 64, k // 64), axis=(2, 3))[: len(part)] ^ np.uint8(k % 251)
        out.flush()
    del out


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    count, draws = [*map(int, sys.argv[3:]), *(1281167, 16)[len(sys.argv) - 3 :]]
    torch.set_num_threads(2)
    path = folder / "synthetic.npy"
    try:
        start = time.perf_counter()
        write_images(path, count)
        written = time.perf_counter() - start
        images = np.load(path, mmap_mode="r")
        optimal_loss(images[:256], SIGMAS, queries=8)  # compiles the kernel
        with PeakMemory() as peak:
            start = time.perf_counter()
            curve = optimal_loss(images, SIGMAS, queries=draws)
            whole = time.perf_counter() - start
        part = images[:PART]
        seconds = []
        for m in (PART_DRAWS, 2 * PART_DRAWS):
            start = time.perf_counter()
            optimal_loss(part, SIGMAS, queries=m)
            seconds.append(time.perf_counter() - start)
    finally:
        path.unlink(missing_ok=True)
    each = (seconds[1] - seconds[0]) / PART_DRAWS * count / min(PART, count)
    table = pd.DataFrame(
        {
            "points": [count],
            "dim": [int(np.prod(SHAPE))],
            "sigmas": [len(SIGMAS)],
            "write_seconds": [written],
            "draws": [draws],
            "seconds": [whole],
            "peak_gib": [peak.bytes / GIB],
            "seconds_a_further_draw": [each],
            "seconds_8000_draws": [whole + each * (8000 - draws)],
            "loss_largest_sigma": [curve.loss[-1]],
        }
    )
    print(table.T.to_string(header=False))
    command = "python benchmarks/optimal_large.py " + " ".join(["FOLDER", *sys.argv[2:]])
    write_table(out, table, provenance(command=command, threads=2))


if __name__ == "__main__":
    main()
