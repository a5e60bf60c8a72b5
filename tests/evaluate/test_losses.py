"""Loss and direct gap of denoisers whose distance from the posterior mean is known."""

import numpy as np
import pytest
import torch

from jstar.errors import JstarError
from jstar.evaluate import measure
from jstar.noise import gaussian

SIGMA = np.array([0.3, 1.0, 4.0])


@pytest.fixture
def two_points():
    """400 draws of the distribution {+1, -1}^4 mirrored (two points), and its posterior mean."""
    sign = np.where(np.arange(400) % 2, 1.0, -1.0).astype(np.float32)
    x0 = np.repeat(sign[:, None], 4, axis=1).reshape(-1, 1, 2, 2)
    noise = gaussian(0, np.arange(400), 4).reshape(x0.shape)

    def denoiser(x, sigma, labels=None):
        s = sigma.reshape(-1, 1, 1, 1)
        return torch.tanh(x.sum(dim=(1, 2, 3), keepdim=True) / s**2).expand_as(x)

    def posterior_mean(s):
        x = torch.from_numpy(x0 + SIGMA[s].astype(np.float32) * noise)
        return denoiser(x, torch.full((400,), float(SIGMA[s]))).numpy()

    return x0, noise, denoiser, posterior_mean


def test_the_posterior_mean_has_no_gap(two_points):
    x0, noise, denoiser, oracle = two_points
    got = measure(denoiser, x0, noise, SIGMA, posterior_mean=oracle, batch=64)
    assert got.gap_SM.max() < 1e-10
    assert got.loss_SM.shape == (3, 400)


def test_a_known_perturbation_is_the_gap_whatever_the_batch(two_points):
    x0, noise, denoiser, oracle = two_points
    for batch in (7, 400):
        got = measure(
            lambda x, s, y: denoiser(x, s) + 0.25, x0, noise, SIGMA,
            posterior_mean=oracle, batch=batch,
        )  # fmt: skip
        np.testing.assert_allclose(got.gap_SM, 0.0625, rtol=1e-4)


def test_gap_and_loss_minus_optimal_loss_agree_within_errors(two_points):
    x0, noise, denoiser, oracle = two_points
    best = measure(denoiser, x0, noise, SIGMA)
    worse = measure(lambda x, s, y: 0.8 * denoiser(x, s), x0, noise, SIGMA, posterior_mean=oracle)
    difference = worse.loss_SM - best.loss_SM - worse.gap_SM
    error = difference.std(axis=1, ddof=1) / np.sqrt(400)
    assert (np.abs(difference.mean(axis=1)) < 4 * error + 1e-9).all()
    assert worse.gap_SM.mean(axis=1).min() > 0.001


def test_the_error_of_a_total_counts_shared_draws(two_points):
    x0, noise, _, oracle = two_points
    got = measure(lambda x, s, y: 0.5 * x, x0, noise, SIGMA, posterior_mean=oracle)
    rows = got.summary(np.vstack([np.eye(3), np.ones((1, 3))]))
    assert rows[3][0] == pytest.approx(sum(r[0] for r in rows[:3]))
    assert rows[3][1] == pytest.approx(got.loss_SM.sum(axis=0).std(ddof=1) / 20)


def test_without_an_oracle_there_is_no_gap(two_points):
    x0, noise, denoiser, _ = two_points
    got = measure(denoiser, x0, noise, SIGMA)
    assert got.gap_SM is None
    assert np.isnan(got.summary(np.eye(3))[0][2])


def test_labels_reach_the_denoiser_with_their_image(two_points):
    x0, noise, _, _ = two_points
    labels = np.where(x0[:, 0, 0, 0] > 0, 1, 0)

    def knows(x, sigma, y):
        return (2.0 * y - 1).reshape(-1, 1, 1, 1).expand_as(x).float()

    assert measure(knows, x0, noise, SIGMA, labels_M=labels, batch=33).loss_SM.max() == 0


@pytest.mark.parametrize(
    ("denoiser", "word"),
    [
        (lambda x, s, y: x[:, :, :1], "must return the same shape"),
        (lambda x, s, y: x * float("nan"), "not finite at sigma = 0.3"),
    ],
)
def test_a_broken_denoiser_is_named(two_points, denoiser, word):
    x0, noise, _, _ = two_points
    with pytest.raises(JstarError, match=word):
        measure(denoiser, x0, noise, SIGMA)
