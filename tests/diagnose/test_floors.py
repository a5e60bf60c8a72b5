"""The floors of a denoiser that generalises, where they are known by other means."""

import numpy as np
import pytest
import torch

from jstar.diagnose.floors import extrapolate, memorised, upper_bounds

NO_ERROR = np.full(3, 1e-9)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_the_limit_of_a_power_law_is_found(power):
    counts = np.array([250.0, 500.0, 1000.0])
    loss = 0.3 - 0.5 * counts**-power
    limit, low, high = extrapolate(loss, NO_ERROR, 0.5)
    assert limit == pytest.approx(0.3, rel=1e-5)
    assert low <= limit <= high


def test_what_cannot_be_extrapolated_is_not():
    near = np.array([0.29, 0.297, 0.3])
    assert np.isfinite(extrapolate(near, NO_ERROR, 0.4)).all()
    assert np.isnan(extrapolate(near, NO_ERROR, 1.0)).all()  # the bound from above is far away
    growing = np.array([0.001, 0.002, 0.004])  # as long as images are far apart
    assert np.isnan(extrapolate(growing, NO_ERROR, 1.0)).all()
    assert np.isnan(extrapolate(np.zeros(3), NO_ERROR, 1.0)).all()
    steps = np.array([0.10, 0.19, 0.265])  # shrinking, but too far to go
    assert np.isnan(extrapolate(steps, NO_ERROR, 1.0)).all()


def test_steps_within_their_errors_leave_the_value_and_an_interval():
    limit, low, high = extrapolate(np.array([0.3, 0.301, 0.3005]), np.full(3, 1e-3), 0.4)
    assert limit == pytest.approx(0.3005, abs=2e-3)
    assert low < limit < high < 0.32


def test_of_gaussian_noise_the_linear_filter_is_the_floor():
    draw = np.random.default_rng(0).normal(size=(2048 + 64, 1, 4, 4)).astype("float32")
    known, x0 = torch.from_numpy(draw[:2048]), torch.from_numpy(draw[2048:])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    ((wiener, alone, local, side),) = upper_bounds(known, x0, noise, np.array([1.0]))
    assert wiener == pytest.approx(0.5, rel=0.1)
    assert local == pytest.approx(0.5, rel=0.2)
    assert side == 3  # independent pixels: the smaller patch knows as much and errs less
    assert alone > wiener


def test_outputs_that_are_training_images_are_memorised():
    images = torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    training, unseen = images[:100].flatten(1), images[100:].flatten(1)
    returned = training[torch.cdist(unseen, training).argmin(1)]
    assert memorised(returned, unseen, training) > 0.8
    assert memorised(unseen, unseen, training) == 0.0
    apart = 0.3 * torch.randn(unseen.shape, generator=torch.Generator().manual_seed(1))
    assert memorised(0.9 * unseen + apart, unseen, training) < 0.1
