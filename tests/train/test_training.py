"""Every variant learns; memory options change nothing; the golden losses stay."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from jstar.noise import PROCESSES
from jstar.train.ema import PowerEMA, power_exponent

# The tiny study's d2, seed 0: training loss of each fifth of the run. Committed, so that a change
# of the arithmetic is seen; another machine's vector units move them by parts in a thousand.
GOLDEN = [1.39440, 1.10925, 1.02055, 0.98671, 0.96258]


def fifths(folder):
    table = pd.read_csv(folder / "out" / "telemetry.csv")
    table = table[table["count"] > 0]
    part = np.ceil(table["images"] / table["images"].max() * 5).astype(int)
    total = (table["weighted"] * table["count"]).groupby(part).sum()
    return (total / table["count"].groupby(part).sum()).to_numpy()


def test_golden_losses(run_tiny):
    _, folder = run_tiny(model="d2", train={"images": 12800})
    np.testing.assert_allclose(fifths(folder), GOLDEN, rtol=5e-3)


@pytest.mark.parametrize("name", [*PROCESSES, "min-snr"])
def test_every_variant_learns(name, run_tiny):
    options = {"process": "edm", "min_snr_gamma": 5} if name == "min-snr" else {"process": name}
    status, folder = run_tiny(model="d2", train={"images": 12800, **options})
    losses = fifths(folder)
    assert status.finished
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("options", [
    {"microbatch": 24},
    {"activation_checkpointing": True},
    {"parallel": "fsdp"},
])  # fmt: skip
def test_memory_options_change_only_the_rounding(options, run_tiny):
    _, plain = run_tiny("plain", model="d2")
    _, other = run_tiny("other", model="d2", train=options)
    np.testing.assert_allclose(fifths(plain), fifths(other), rtol=2e-4)


def test_bf16_is_close(run_tiny):
    _, plain = run_tiny("plain", model="d2")
    _, half = run_tiny("half", model="d2", train={"precision": "bf16"})
    np.testing.assert_allclose(fifths(plain), fifths(half), rtol=2e-2)
    assert not np.array_equal(fifths(plain), fifths(half))


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_the_average_has_the_length_it_names(std):
    # Average the step number itself: its profile has the relative standard deviation asked for.
    gamma = power_exponent(std)
    steps = np.arange(1, 4001)
    profile = steps.astype(float) ** gamma
    profile /= profile.sum()
    mean = (profile * steps).sum()
    spread = math.sqrt((profile * (steps - mean) ** 2).sum()) / 4000
    assert spread == pytest.approx(std, rel=5e-3)
    weight = torch.zeros(1, dtype=torch.float64)
    ema = PowerEMA([weight], [std])
    for step in steps.tolist():
        weight.fill_(step)
        ema.update(step)
    assert float(ema.averages[std][0]) == pytest.approx(mean, rel=1e-3)
