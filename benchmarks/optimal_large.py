"""Memory and time of the exact estimator on data far larger than memory (ImageNet-64's size).

python benchmarks/optimal_large.py FOLDER OUT.csv [N] [DRAWS]     default: 1281167, 16
Writes N synthetic 8-bit images of 12,288 values (15.7 GB) to FOLDER and deletes them at the end.
Prints the peak anonymous memory of this process (the page cache is not in it) and the time. What
a further draw costs is measured on the first 4,096 and 12,288 points with 1,024 draws (medians of
seven rounds in turns): a part for every point, and a part by itself. The time of 8,000 draws is
extrapolated with it, in seconds of processor time over the threads, which a busy machine does not
stretch.
"""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from optimal import THREADS, facts

from jstar.optimal import optimal_loss
from jstar.records import write_table

SIGMAS = np.geomspace(0.02, 80, 32)
SHAPE = (3, 64, 64)
TILE = 4096
GIB = 2**30
PARTS, PART_DRAWS, PART_ROUNDS = (4096, 12288), 1024, 7  # what a further draw costs


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


def used_by(part):
    """Processor seconds of some points' sums over PART_DRAWS draws."""
    used = time.process_time()
    optimal_loss(part, SIGMAS, queries=PART_DRAWS)
    return time.process_time() - used


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    count, draws = [*map(int, sys.argv[3:]), *(1281167, 16)[len(sys.argv) - 3 :]]
    torch.set_num_threads(THREADS)
    path = folder / "synthetic.npy"
    try:
        start = time.perf_counter()
        write_images(path, count)
        written = time.perf_counter() - start
        images = np.load(path, mmap_mode="r")
        optimal_loss(images[:256], SIGMAS, queries=8)  # compiles the kernel
        with PeakMemory() as peak:
            start, used = time.perf_counter(), time.process_time()
            curve = optimal_loss(images, SIGMAS, queries=draws)
            whole, whole_used = time.perf_counter() - start, time.process_time() - used
        parts = [np.array(images[:points]) for points in PARTS]
        rounds = np.array([[used_by(part) for part in parts] for _ in range(PART_ROUNDS)])
        seconds = np.median(rounds, axis=0) / THREADS
    finally:
        path.unlink(missing_ok=True)
    by_point = (seconds[1] - seconds[0]) / PART_DRAWS / (PARTS[1] - PARTS[0])
    alone = seconds[0] / PART_DRAWS - by_point * PARTS[0]
    table = pd.DataFrame(
        {
            "points": [count],
            "dim": [int(np.prod(SHAPE))],
            "sigmas": [len(SIGMAS)],
            "write_seconds": [written],
            "draws": [draws],
            "seconds": [whole],
            "peak_gib": [peak.bytes / GIB],
            "processor_seconds": [whole_used],
            "seconds_a_further_draw": [by_point * count + alone],
            "seconds_8000_draws": [
                whole_used / THREADS + (by_point * count + alone) * (8000 - draws)
            ],
            "loss_largest_sigma": [curve.loss[-1]],
        }
    )
    print(table.T.to_string(header=False))
    command = ["python benchmarks/optimal_large.py FOLDER", *sys.argv[2:]]
    write_table(out, table, facts(command))


if __name__ == "__main__":
    main()
