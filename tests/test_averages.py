"""Averages of any length from those stored, against profiles on a grid and tracked averages."""

import numpy as np
import pytest
import torch

from jstar.averages import LONGEST, WORST, Stored, power_exponent
from jstar.config import TrainConfig
from jstar.errors import JstarError
from jstar.train.ema import PowerEMA
from jstar.train.events import training_events

LENGTHS = (0.04, 0.05, 0.07, 0.1, 0.12, 0.15, 0.2, 0.25)
DEFAULT = tuple(np.geomspace(2000, 220_000, 24))  # snapshots of the default study


def profile(length, time, grid):
    """The profile of an average on the grid's cells, exactly integrated."""
    g = power_exponent(length) + 1
    return np.diff(np.minimum(np.append(0, grid) / time, 1) ** g)


@pytest.fixture(scope="module")
def tracked():
    """(snapshot steps, {length: averages [snapshots, weights]}): a drift and correlated noise."""
    events = training_events(TrainConfig(images=220_000, batch=128), 1e6, 256)
    rng, weights = np.random.default_rng(0), torch.zeros(100, dtype=torch.float64)
    ema, kept = PowerEMA([weights], list(LENGTHS)), {length: [] for length in LENGTHS}
    (early, late), noise = rng.standard_normal((2, 100)), np.zeros(100)
    for step in range(1, events.steps + 1):
        noise = 0.95 * noise + 0.15 * rng.standard_normal(100)
        weights.copy_(torch.from_numpy(early * step**-0.3 + late * np.log(step) / 8 + noise))
        ema.update(step)
        if step in events.snapshots:
            for length in LENGTHS:
                kept[length].append(ema.averages[length][0].numpy().copy())
    return events.snapshots, {length: np.array(rows) for length, rows in kept.items()}


def error(tracked, stored, length, snapshot):
    """Relative error of a reconstructed average; that of the nearest stored; the residual."""
    steps, averages = tracked
    shares, residual = Stored(stored, steps[: snapshot + 1]).combine(length)
    kept = np.stack([averages[s][: snapshot + 1] for s in stored], axis=1)
    truth = averages[length][snapshot]
    rows = [np.einsum("tl,tlw->w", shares, kept), *(averages[s][snapshot] for s in stored)]
    made, *others = (np.linalg.norm(row - truth) / np.linalg.norm(truth) for row in rows)
    return made, min(others), residual


@pytest.mark.parametrize("snapshot", [8, 16, 23])
def test_a_pair_tells_what_lies_between_and_a_little_outside(tracked, snapshot):
    for length, bound in ((0.07, 0.006), (0.12, 0.006), (0.04, 0.015), (0.15, 0.01)):
        made, nearest, _ = error(tracked, (0.05, 0.1), length, snapshot)
        assert made < bound
        assert made < 0.4 * nearest


@pytest.mark.parametrize("snapshot", [8, 16, 23])
def test_three_lengths_tell_all_between(tracked, snapshot):
    for length in (0.07, 0.12, 0.15):
        made, nearest, residual = error(tracked, (0.05, 0.1, 0.2), length, snapshot)
        assert made < 0.001
        assert made < 0.02 * nearest
        assert residual < 0.005


def test_what_is_stored_is_itself(tracked):
    for length in (0.05, 0.1):
        made, _, residual = error(tracked, (0.05, 0.1), length, 23)
        assert made < 1e-10
        assert residual < 1e-7


def test_the_residual_is_that_of_the_profiles_and_the_least():
    """On a fine grid, where a sum is a sum: nothing near the coefficients does better."""
    times, grid = (2000.0, 3000.0, 5000.0), np.arange(1, 5001, dtype=float)
    basis = np.array([profile(s, t, grid) for t in times for s in (0.1, 0.2)])
    target, rng = profile(0.14, 5000.0, grid), np.random.default_rng(0)
    shares, residual = Stored((0.1, 0.2), times).combine(0.14)

    def distance(coefficients):
        return np.linalg.norm(coefficients @ basis - target) / np.linalg.norm(target)

    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert residual == pytest.approx(distance(shares.ravel()), rel=1e-3)
    for _ in range(50):
        step = rng.standard_normal(6)
        step -= step.mean()  # weights that never move stay
        assert distance(shares.ravel() + 1e-3 * step) > residual


def test_many_snapshots_and_lengths_stay_well_conditioned():
    stored = Stored((0.02, 0.05, 0.1, 0.15, 0.2, 0.25), tuple(np.geomspace(1e3, 1e6, 100)))
    for length in (0.03, 0.07, 0.28):
        shares, residual = stored.combine(length)
        assert residual < 0.02
        assert np.abs(shares).sum() < 100  # of the stored float32's rounding
        assert shares.sum() == pytest.approx(1, abs=1e-9)


def test_what_cannot_be_made_is_refused_and_the_possible_named():
    stored = Stored((0.05, 0.1), DEFAULT)
    for length in (0.03, 0.2, 0.5):
        assert not stored.reaches(length)
        with pytest.raises(JstarError, match=rf"{length:g} .*0.05, 0.1.* are 0.044 to 0.12$"):
            stored.require(length)
    for length in (0.044, 0.07, 0.12):
        assert stored.combine(length)[1] <= WORST
        stored.require(length)
    assert stored.combine(0.043)[1] > WORST < stored.combine(0.121)[1]
    with pytest.raises(JstarError, match="are 0.046 to 0.056, 0.159 to 0.251$"):
        Stored((0.05, 0.2), DEFAULT).require(0.1)
    assert not Stored((0.05, 0.1), DEFAULT[:1]).reaches(0.07)  # of one snapshot only


def test_no_average_is_longer_than_the_mean():
    assert power_exponent(LONGEST) == pytest.approx(0, abs=1e-9)
    with pytest.raises(JstarError, match="length 0.7 .* up to 0.2887"):
        power_exponent(0.7)
