"""FID, KID, precision and recall of features beside public code, in one run: time and value.

OMP_NUM_THREADS=1 python benchmarks/fid_peers.py OUT.csv
Ours are numbers with their standard errors. FID and KID beside torch-fidelity's own code, whose KID
is of 100 random subsets of 1,000 with the deviation between these; precision and recall beside
`torch.cdist` and `kthvalue` on all pairs at once. All from float32 features of two sets, in turns.
Install torch-fidelity in an environment of its own that sees jstar.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from jstar.records import provenance, write_table
from jstar.sampling.quality.distances import (
    NEIGHBOURS,
    feature_moments,
    fid,
    kid,
    precision_recall,
)

THREADS = 1  # of torch; numpy's by the environment
REPEATS = 3
# Images, features, and the length over which the features' variances fall by e, in features.
CASES = ((3000, 1024, 200.0), (10_000, 1024, 200.0))
SUBSETS = {  # torch-fidelity's defaults
    "kid_subsets": 100,
    "kid_subset_size": 1000,
    "kid_degree": 3,
    "kid_gamma": None,
    "kid_coef0": 1,
    "rng_seed": 2020,
}


def features(count, width, fall, seed, mix):
    noise = np.random.default_rng(seed).normal(size=(count, width))
    turned = (noise * np.exp(-np.arange(width) / (2 * fall))) @ mix
    # As after a ReLU; the second set is shifted and wider.
    return np.maximum(turned * (1 + 0.05 * seed) + 0.02 * seed, 0).astype(np.float32)


def our_fid(x, y):
    found = fid(x, feature_moments(y))
    return found.value, found.se


def their_fid(x, y):
    stats = [fid_features_to_statistics(torch.from_numpy(part)) for part in (x, y)]
    return fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"], np.nan


def our_kid(x, y):
    found = kid(x, y)
    return found.value, found.se


def their_kid(x, y):
    parts = [torch.from_numpy(part) for part in (x, y)]
    found = kid_features_to_metric(*parts, **SUBSETS, verbose=False)
    return tuple(found[f"kernel_inception_distance_{what}"] for what in ("mean", "std"))


def our_precision(x, y):
    found, _ = precision_recall(x, y)
    return found.value, found.se


def torch_precision(x, y):
    """Precision and recall, of which precision is shown."""
    x_NF, y_MF = torch.from_numpy(x), torch.from_numpy(y)
    # The nearest "neighbour" of a point is the point itself.
    reach_N, reach_M = (torch.cdist(a, a).kthvalue(NEIGHBOURS + 1).values for a in (x_NF, y_MF))
    apart_NM = torch.cdist(x_NF, y_MF)
    precision = (apart_NM <= reach_M).any(1).float().mean().item()
    _recall = (apart_NM <= reach_N[:, None]).any(0).float().mean().item()
    return precision, np.nan


MEASURES = {
    "fid": (our_fid, their_fid),
    "kid": (our_kid, their_kid),
    "precision, recall": (our_precision, torch_precision),
}


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
        for measure, (ours, theirs) in MEASURES.items():
            times = [(clock(ours, x, y), clock(theirs, x, y)) for _ in range(REPEATS)]
            mine, other = (statistics.median(t[k][0] for t in times) for k in (0, 1))
            (value, se), (public, deviation) = times[0][0][1], times[0][1][1]
            known = (value, se, public, deviation)
            rows.append((measure, count, width, fall, mine, other, mine / other, *known))
            print(rows[-1], flush=True)
    columns = (
        "measure images features fall seconds seconds_theirs times_theirs value se value_theirs "
        "deviation_theirs"
    )
    table = pd.DataFrame(rows, columns=columns.split())
    command = f"OMP_NUM_THREADS=1 python benchmarks/fid_peers.py {sys.argv[1]}"
    facts = provenance(command=command, threads=THREADS, repeats=REPEATS, seconds="processor")
    write_table(Path(sys.argv[1]), table, facts)


if __name__ == "__main__":
    main()
