"""Closed-form truths: the printed standard error is honest (METHOD section 1, item 10)."""

import functools

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from sklearn.datasets import load_digits

from jstar.noise import gaussian
from jstar.optimal import draws, optimal_loss
from jstar.optimal.exact.pair_form import ControlledPairForm, PairForm
from jstar.optimal.exact.problem import pose_problem
from jstar.optimal.optimal_loss import curve_of_draws, sums_of_draws
from jstar.optimal.points import as_points

SEEDS = 300


def two_points(half_distance, sigma):
    """J* per dimension of two points at +-a on one axis of D dimensions, times D."""
    a, r = half_distance, half_distance / sigma

    def density(z):
        return np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (1 - np.tanh(r * r + r * z))

    return a * a * quad(density, -12, 12, points=[-r])[0]


def mixture(weights, mean, var, sigma):
    """J* of a one-dimensional Gaussian mixture, by integration over x."""
    wide = var + sigma**2

    def density(x):
        part = weights * np.exp(-((x - mean) ** 2) / (2 * wide)) / np.sqrt(2 * np.pi * wide)
        total = part.sum()
        if total == 0:
            return 0.0
        post = mean + var / wide * (x - mean)
        d = (part * post).sum() / total
        return (part * (var * sigma**2 / wide + post**2)).sum() - total * d**2

    reach = np.abs(mean).max() + 12 * np.sqrt(wide.max())
    return quad(density, -reach, reach, limit=400)[0]


def assert_honest(values, errors, truth, inside_one, what=""):
    """Inside 3 SE in at least 99 % of the seeds, inside 1 SE in a share `inside_one`."""
    far = np.abs(np.array(values) - truth) / np.array(errors)
    assert (far < 3).mean() >= 0.99, what
    assert inside_one[0] <= (far < 1).mean() <= inside_one[1], what


@pytest.fixture(scope="module")
def remembered():
    """`gaussian`, each row made once: it is a pure function, and most of these tests' time."""
    return functools.cache(lambda seed, first, last, dim: gaussian(seed, range(first, last), dim))


@pytest.mark.parametrize("antithetic", [False, True])
def test_two_points(antithetic, remembered, monkeypatch):
    monkeypatch.setattr(
        draws,
        "gaussian",
        lambda seed, index_M, dim: remembered(seed, int(index_M[0]), int(index_M[-1]) + 1, dim),
    )
    points = np.array([[1.5, 0.0, 0.2], [-0.5, 1.0, 0.2]])
    half = np.linalg.norm(points[0] - points[1]) / 2
    sigmas = [0.5, 0.7, 1.2, 3.0]
    curves = {PairForm: [], ControlledPairForm: []}  # of the same draws
    for seed in range(SEEDS):
        problem = pose_problem(as_points(points), sigmas, estimator="exact", seed=seed,
                               antithetic=antithetic)  # fmt: skip
        sums = sums_of_draws(problem, PairForm())
        for form, same in curves.items():
            same.append(curve_of_draws(problem, form(), sums))
    for form, same in curves.items():
        for s, sigma in enumerate(sigmas):
            values, errors = [c.loss[s] for c in same], [c.stderr[s] for c in same]
            assert_honest(values, errors, two_points(half, sigma) / 3, (0.60, 0.76), form)


def test_gaussian_is_exact():
    variances = np.array([0.01, 0.5, 2.0, 9.0])
    sigmas = np.array([0.1, 1.0, 5.0])
    curve = optimal_loss(np.ones((1, 4)), sigmas, spread=np.sqrt(variances)[None], queries=16)
    truth = (variances * sigmas[:, None] ** 2 / (variances + sigmas[:, None] ** 2)).mean(1)
    assert np.allclose(curve.loss, truth, rtol=1e-6)


def test_gaussian_mixture():
    mean, var = np.array([-1.0, 1.5]), np.array([0.09, 0.64])
    sigmas = [0.4, 1.0, 2.5]
    curves = [
        optimal_loss(mean[:, None], sigmas, spread=np.sqrt(var)[:, None], queries=300, seed=seed)
        for seed in range(SEEDS)
    ]
    for s, sigma in enumerate(sigmas):
        truth = mixture(np.array([0.5, 0.5]), mean, var, sigma)
        assert_honest(
            [c.loss[s] for c in curves], [c.stderr[s] for c in curves], truth, (0.60, 0.76)
        )


def test_noise_on_an_int8_grid_is_as_good_as_gaussian():
    """DataMoments of 2 million numbers, and the same J* as from float32 noise."""
    eps_MD = draws.gaussian_noise(3, np.arange(200), 10_000)
    term_MD, step_M = draws.quantised_noise(eps_MD)
    grid = term_MD.double() * step_M.double()[:, None]
    exact = eps_MD.double()
    assert term_MD.abs().max() <= draws.NOISE_LEVELS == 32  # or products.c would overflow
    assert (grid - exact).abs().max() < 0.09  # half a step of 5.5 / 32
    # Each draw has its length; a plain step would make the variance 1.5e-3 too large.
    torch.testing.assert_close(grid.square().sum(1), exact.square().sum(1), rtol=1e-6, atol=0)
    assert (grid**4).mean().item() == pytest.approx((exact**4).mean().item(), rel=3e-4)
    images = np.random.default_rng(0).integers(0, 256, (2000, 8, 8), dtype=np.uint8)
    sigmas = [1.0, 1.6, 2.5, 5.0, 20.0]
    int8, fp32 = (
        PairForm().sums(
            pose_problem(as_points(images), sigmas, estimator="exact", queries=2000,
                         precision=precision), (1, 1), None,
        )
        for precision in ("int8", "fp32")
    )  # fmt: skip
    for s in range(len(sigmas)):
        pairs = [sums[:, :, s, 1] / sums[:, :, s, 0] for sums in (int8, fp32)]
        difference_M = (pairs[0] - pairs[1]).mean(0)
        error = difference_M.std() / np.sqrt(2000)
        assert abs(difference_M.mean()) < 4 * error + 1e-7 * pairs[1].mean()
        assert error < 0.1 * pairs[1].mean(0).std() / np.sqrt(2000) + 1e-7 * pairs[1].mean()


@pytest.mark.parametrize("queries", [600, 200])
def test_the_error_is_honest_where_the_sources_are_a_large_share_of_the_points(queries):
    """Sources are drawn without replacement; the controls leave only the noise's share.

    So the default form needs no finite-population correction: over seeds its values scatter as
    its standard error says, with all points drawn and with a third of them. The pair form's error
    still holds the spread of the sources, and is too large where all of them are drawn.
    """
    images = load_digits().images.astype(np.uint8)[:600]
    points = as_points(images, offset=8.0, scale=1 / 8)
    problems = [
        pose_problem(points, [0.85, 1.5, 4.0, 20.0], estimator="exact", queries=queries, seed=seed)
        for seed in range(60)
    ]
    sums = [sums_of_draws(problem, PairForm()) for problem in problems]
    ratio = {}
    for form in (ControlledPairForm, PairForm):
        curves = [curve_of_draws(p, form(), s) for p, s in zip(problems, sums, strict=True)]
        scatter = np.std([c.loss for c in curves], axis=0, ddof=1)
        ratio[form] = scatter / np.sqrt(np.mean([c.stderr**2 for c in curves], axis=0))
    assert (ratio[ControlledPairForm] < 1.25).all()
    assert (ratio[ControlledPairForm] > 0.6).all()
    if queries == len(points):
        assert ratio[PairForm][-1] < 0.2
