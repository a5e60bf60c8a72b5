"""Is the printed standard error honest? Two points, 300 seeds, several numbers of draws.

python benchmarks/optimal_coverage.py [draws ...]      default: 400 1000 4096 (4 minutes)
Asked: inside 3 SE in at least 99 %, inside 1 SE in 60-76 %, at every noise scale.
"""

import itertools
import sys

import numpy as np
import torch
from scipy.integrate import quad

from jstar.config.choices import FORMS
from jstar.optimal import optimal_loss

SIGMAS = [0.5, 0.7, 1.2, 3.0]
POINTS = np.array([[1.5, 0.0, 0.2], [-0.5, 1.0, 0.2]])


def truth(sigma: float) -> float:
    """J* of the two points per dimension, by integration along the line through them."""
    a = float(np.linalg.norm(POINTS[0] - POINTS[1])) / 2
    r = a / sigma

    def density(z: float) -> float:
        return np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (1 - np.tanh(r * r + r * z))

    return a * a * quad(density, -12, 12, points=[-r])[0] / POINTS.shape[1]


def main() -> None:
    torch.set_num_threads(1)
    true_S = np.array([truth(s) for s in SIGMAS])
    for draws in map(int, sys.argv[1:] or (400, 1000, 4096)):
        for form, antithetic in itertools.product(FORMS, (False, True)):
            curves = [
                optimal_loss(
                    POINTS, SIGMAS, queries=draws, seed=seed, form=form, antithetic=antithetic
                )
                for seed in range(300)
            ]
            far = np.array([(c.loss - true_S) / c.stderr for c in curves])
            inside3, inside1 = (np.abs(far) < 3).mean(0), (np.abs(far) < 1).mean(0)
            honest = (inside3 >= 0.99) & (inside1 >= 0.60) & (inside1 <= 0.76)
            for s, sigma in enumerate(SIGMAS):
                print(
                    f"M={draws} {form} antithetic={antithetic} sigma={sigma}: "
                    f"3SE {inside3[s]:.4f} 1SE {inside1[s]:.3f} bias/SE {far[:, s].mean():+.2f} "
                    f"{'ok' if honest[s] else 'NOT HONEST'}"
                )


if __name__ == "__main__":
    main()
