"""Speed, agreement and closure of the exact estimator, side by side in one run.

python benchmarks/optimal.py OUT.csv CIFAR10.npy [OTHER.npy ...]      uint8 arrays [N, C, H, W]
The first file is timed, in seconds by the clock and of the processor (which a busy machine does not
stretch); every file gets its I-MMSE closure and its agreement with float64.
ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 python …: all on AVX2.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jstar.hardware import cpu_name
from jstar.optimal import optimal_loss
from jstar.optimal.draws import gaussian_noise, quantised_noise, systematic_sources
from jstar.optimal.exact.data_moments import measure_moments
from jstar.optimal.points import TILE, as_points
from jstar.records import provenance, write_table

SIGMAS = np.geomspace(0.02, 80, 32)
DRAWS = 2000
THREADS = 2
HELD = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
CHECKED = 32  # draws compared with float64 brute force, at every noise scale


def clock(work):
    """Seconds by the clock, and of the processor."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def products(images):
    """Two float32 products of the same sizes: the floor for float32."""
    flat = images.reshape(len(images), -1)
    tiles = [torch.from_numpy(flat[a : a + TILE]).float() for a in range(0, len(flat), TILE)]
    first, second = torch.randn((2, DRAWS, flat.shape[1]))
    for tile in tiles:
        first @ tile.t(), second @ tile.t()


def straightforward(images, sigma=1.0):
    """One noise scale as anybody would write it: distances, softmax, mean (float32)."""
    y = torch.from_numpy(images.reshape(len(images), -1)).float() / 127.5 - 1
    x = y[:DRAWS] + sigma * torch.randn((DRAWS, y.shape[1]))
    for rows in x.split(250):
        weights = torch.softmax(-torch.cdist(rows, y).square() / (2 * sigma**2), dim=1)
        weights @ y


def disagreement(images, precision):
    """Worst over sigma of |J - J64| / max(1e-4 J64, 1e-7 variance): at most 1 is asked for."""
    curve = optimal_loss(images, SIGMAS, queries=CHECKED, form="pair", antithetic=False,
                         precision=precision)  # fmt: skip
    points = as_points(images)
    moments = measure_moments(points, torch.device("cpu"))
    source = systematic_sources(moments.half_norm_N, CHECKED, 0)
    eps = gaussian_noise(0, np.arange(CHECKED), points.dim)
    if precision == "int8":
        term, step = quantised_noise(eps)
        eps = term.double() * step.double()[:, None]
    y = points.take(source).double()
    pair = torch.empty((CHECKED, len(points)), dtype=torch.float64)
    along = torch.empty_like(pair)
    for a, b in points.tiles():
        z = points.tile(a, b).double()
        pair[:, a:b] = 0.5 * (y.square().sum(1)[:, None] + z.square().sum(1)) - y @ z.t()
        along[:, a:b] = eps.double() @ z.t() - (eps.double() * y).sum(1)[:, None]
    worst = 0.0
    for s, sigma in enumerate(SIGMAS):
        beta = points.scale / sigma
        weights = torch.softmax(beta * (along - beta * pair), dim=1)
        true = float((weights * pair).sum(1).mean()) * points.scale**2 / points.dim
        limit = max(1e-4 * true, 1e-7 * curve.variance)
        worst = max(worst, abs(curve.loss[s] - true) / limit)
    return worst


def timings(images, name):
    """Rows of the timed file: ours and the float32 floor take turns, both see the same machine."""
    optimal_loss(images[:4096], SIGMAS, queries=64)  # compiles the kernel
    ours, floor = [], []
    for _ in range(3):
        ours.append(clock(lambda: optimal_loss(images, SIGMAS, queries=DRAWS)))
        floor.append(clock(lambda: products(images)))
    one = clock(lambda: straightforward(images))
    for k, of in enumerate(("clock", "processor")):
        ratios = [a[k] / b[k] for a, b in zip(ours, floor, strict=True)]
        yield name, f"{len(SIGMAS)} sigmas, {DRAWS} antithetic pairs, {of} seconds", median(ours, k)
        yield name, f"two float32 products, {of} seconds", median(floor, k)
        yield name, f"ours / two float32 products, {of}", statistics.median(ratios)
        yield (
            name,
            f"straightforward (extrapolated from one sigma) / ours, {of}",
            (one[k] * len(SIGMAS) / median(ours, k)),
        )


def median(times, k):
    return statistics.median(each[k] for each in times)


def facts(command):
    """Provenance: the command with what the environment holds, the threads and the processor."""
    held = [f"{name}={os.environ[name]}" for name in HELD if name in os.environ]
    features = torch.backends.cpu.get_cpu_capability()
    words = " ".join([*held, *command])
    return provenance(command=words, threads=THREADS, device=cpu_name(), features=features)


def main():
    out, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    torch.set_num_threads(THREADS)
    rows = list(timings(np.load(files[0]), files[0].stem))
    for file in files:
        images = np.load(file)
        got, expected = optimal_loss(images, SIGMAS, queries=DRAWS).closure
        rows.append((file.stem, "closure / ln N", got / expected))
        for precision in ("int8", "fp32"):
            what = f"{precision} against float64, worst / allowed"
            rows.append((file.stem, what, disagreement(images, precision)))
    table = pd.DataFrame(rows, columns=["data", "what", "value"])
    print(table.to_string(index=False))
    names = [sys.argv[1], *(file.name for file in files)]
    write_table(out, table, facts(["python benchmarks/optimal.py", *names]))


if __name__ == "__main__":
    main()
