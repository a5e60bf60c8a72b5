"""The whole curve against other implementations of the same denoiser, side by side on the CPU.

python benchmarks/optimal_peers.py IMAGES.npy OUT.csv     uint8 [N, C, H, W]
deepinv (MMSE), smalldiffusion (IdealDenoiser) and pykeops serve one noise scale at a time: each is
timed at one, on a few draws, and scaled to 32 noise scales and 2,000 draws (ours are 2,000
antithetic pairs, twice the posteriors). Install them beside jstar, not into it:
pip install --no-deps --target PEERS deepinv smalldiffusion pykeops keopscore   (and what they miss)
PYTHONPATH=PEERS python benchmarks/optimal_peers.py ...       absent ones are skipped, with a reason
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jstar.optimal import optimal_loss, posterior_mean
from jstar.records import provenance, write_table

SIGMAS = np.geomspace(0.02, 80, 32)
DRAWS, FEW, ONE = 2000, 100, 1.0  # draws of ours and of a peer; the noise scale they are timed at
REPEATS = 3


def deepinv_mmse(y):
    from deepinv.models import MMSE

    return MMSE(dataloader=y, device=torch.device("cpu"))


def smalldiffusion_ideal(y):
    from smalldiffusion import IdealDenoiser

    ideal = IdealDenoiser(y)
    return lambda x, sigma: x - sigma * ideal(x, torch.tensor(sigma))


def pykeops_reduction(y):
    from pykeops.torch import LazyTensor

    flat = y.flatten(1).contiguous()

    def denoise(x, sigma):
        rows = x.flatten(1).contiguous()
        logits = -LazyTensor(rows[:, None]).sqdist(LazyTensor(flat[None])) / (2 * sigma**2)
        return logits.sumsoftmaxweight(LazyTensor(flat[None]), dim=1).reshape(x.shape)

    return denoise


def straightforward(y):
    """Distances, softmax, mean, as anybody would write it in torch."""
    flat = y.flatten(1)

    def denoise(x, sigma):
        logits = -torch.cdist(x.flatten(1), flat).square() / (2 * sigma**2)
        return (torch.softmax(logits, dim=1) @ flat).reshape(x.shape)

    return denoise


def clock(work):
    start = time.perf_counter()
    out = work()
    return time.perf_counter() - start, out


def main():
    torch.set_num_threads(2)
    images = np.load(sys.argv[1])
    y = torch.from_numpy(images).float() / 127.5 - 1
    few = np.arange(FEW) * len(y) // FEW
    x = y[few] + ONE * torch.randn((FEW, *y.shape[1:]), generator=torch.manual_seed(0))
    expected = posterior_mean(x.numpy(), images, ONE)
    optimal_loss(images[:4096], SIGMAS, queries=64)  # compiles the kernel
    ours = [clock(lambda: optimal_loss(images, SIGMAS, queries=DRAWS))[0] for _ in range(REPEATS)]
    base = statistics.median(ours)
    rows = [("jstar", "", len(SIGMAS), DRAWS, base, base, 1.0, 0.0)]
    for make in (straightforward, deepinv_mmse, smalldiffusion_ideal, pykeops_reduction):
        name = make.__name__
        draws = 4 if make is pykeops_reduction else FEW
        try:
            denoise = make(y)
            with torch.no_grad():
                denoise(x[:2], ONE)  # compiles what is to be compiled
                times = [clock(lambda d=denoise, m=draws: d(x[:m], ONE)) for _ in range(REPEATS)]
        except Exception as error:
            rows.append((name, f"skipped: {error!r:.150}", 0, 0, *[float("nan")] * 4))
            continue
        seconds = statistics.median(t for t, _ in times)
        off = float((times[0][1] - torch.from_numpy(expected[:draws])).abs().max())
        whole = seconds * len(SIGMAS) * DRAWS / draws
        rows.append((name, "", 1, draws, seconds, whole, whole / base, off))
        print(rows[-1], flush=True)
    table = pd.DataFrame(
        rows,
        columns=[
            "what",
            "note",
            "sigmas_timed",
            "draws_timed",
            "seconds",
            "seconds_whole_curve",
            "times_ours",
            "largest_difference",
        ],
    )
    print(table.to_string())
    command = f"python benchmarks/optimal_peers.py {Path(sys.argv[1]).name} {sys.argv[2]}"
    write_table(Path(sys.argv[2]), table, provenance(command=command, threads=2, points=len(y)))


if __name__ == "__main__":
    main()
