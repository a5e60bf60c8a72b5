"""Tables of losses from laws J(N, D) = E + A N^-a + B D^-b that are known."""

import numpy as np
import pandas as pd

CHINCHILLA = {"E": 1.82, "A": 482.0, "a": 0.348, "B": 2085.0, "b": 0.366}
REFINED = {"E": 1.7, "A": 900.0, "a": 0.4, "B": 3000.0, "b": 0.4 * 0.497 / 0.503}


def losses(n, d, E, A, a, B, b):
    return E + A / n**a + B / d**b


def by_budget(law, flops, sizes, span, noise=0.0, jitter=0.0, seed=0):
    """One point a run: sizes within exp(+-span) of each budget's optimum, F off by jitter."""
    rng, rows = np.random.default_rng(seed), []
    for budget in flops:
        best = optimal_size(law, budget)
        for k, away in enumerate(np.linspace(-span, span, sizes)):
            n = best * np.exp(away + 0.05 * rng.standard_normal())
            f = budget * np.exp(jitter * rng.uniform(-1, 1))
            d = f / (6 * n)
            loss = losses(n, d, **law)
            loss += noise * (loss - law["E"]) * rng.standard_normal()
            rows.append((f"{budget:.1e}-{k}", n, f, d, loss))
    return pd.DataFrame(rows, columns=["run", "params", "flops", "images", "loss"])


def size_exponent(law):
    return law["b"] / (law["a"] + law["b"])


def optimal_size(law, flops):
    ratio = law["a"] * law["A"] / (law["b"] * law["B"])
    return ratio ** (1 / (law["a"] + law["b"])) * (flops / 6) ** size_exponent(law)


def ladder(params, flops_of):
    parts = []
    for n in params:
        flops = flops_of(n)
        d = flops / (6 * n)
        loss = losses(n, d, **CHINCHILLA)
        parts.append(
            pd.DataFrame({"run": f"{n:g}", "params": n, "flops": flops, "images": d, "loss": loss})
        )
    return pd.concat(parts, ignore_index=True)
