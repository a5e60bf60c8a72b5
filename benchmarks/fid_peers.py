"""FID of features against torch-fidelity's own code, in one run: processor time and value.

OMP_NUM_THREADS=1 python benchmarks/fid_peers.py OUT.csv
Ours is FID with its standard error, theirs is the number alone; both from float32 features of two
sets, moments included. Install torch-fidelity in an environment of its own that sees jstar.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from jstar.records import provenance, write_table
from jstar.sampling.quality.distances import feature_moments, fid

THREADS = 1  # of torch; numpy's by the environment
REPEATS = 5
# Images, features, and the length over which the features' variances fall by e, in features.
CASES = ((3000, 1024, 1e9), (3000, 1024, 200.0), (10_000, 1024, 200.0))


def features(count, width, fall, seed, mix):
    noise = np.random.default_rng(seed).normal(size=(count, width))
    turned = (noise * np.exp(-np.arange(width) / (2 * fall))) @ mix
    # As after a ReLU; the second set is shifted and wider.
    return np.maximum(turned * (1 + 0.05 * seed) + 0.02 * seed, 0).astype(np.float32)


def ours(x, y):
    found = fid(x, feature_moments(y))
    return found.value, found.se


def theirs(x, y):
    stats = [fid_features_to_statistics(torch.from_numpy(part)) for part in (x, y)]
    return fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"], np.nan


def clock(work, *arguments):
    start = time.process_time()
    out = work(*arguments)
    return time.process_time() - start, out


def main():
    torch.set_num_threads(THREADS)
    rows = []
    for count, width, fall in CASES:
        mix = np.random.default_rng(9).normal(size=(width, width)) / width**0.5
        x, y = (features(count, width, fall, seed, mix) for seed in (1, 0))
        times = [(clock(ours, x, y), clock(theirs, x, y)) for _ in range(REPEATS)]
        mine, other = (statistics.median(t[k][0] for t in times) for k in (0, 1))
        (value, se), (public, _) = times[0][0][1], times[0][1][1]
        rows.append((count, width, fall, mine, other, mine / other, value, se, public))
        print(rows[-1], flush=True)
    table = pd.DataFrame(
        rows,
        columns=[
            "images",
            "features",
            "fall",
            "seconds",
            "seconds_torch_fidelity",
            "times_theirs",
            "fid",
            "fid_se",
            "fid_torch_fidelity",
        ],
    )
    command = f"OMP_NUM_THREADS=1 python benchmarks/fid_peers.py {sys.argv[1]}"
    facts = provenance(command=command, threads=THREADS, repeats=REPEATS, seconds="processor")
    write_table(Path(sys.argv[1]), table, facts)


if __name__ == "__main__":
    main()
