"""Samplers against closed forms: order of convergence, Gaussian data, textbook DDIM, batches."""

import numpy as np
import pytest
import torch

from jstar.config.choices import SAMPLERS
from jstar.errors import JstarError
from jstar.optimal import posterior_mean
from jstar.sampling.samplers import Sampler, draw_images, guided, start_noise
from jstar.sampling.steps import noise_steps

SHAPE = (1, 2, 2)
MEAN = torch.tensor([0.5, -0.2, 0.0, 0.1], dtype=torch.float64)
VARIANCE = torch.tensor([1.0, 0.3, 0.05, 0.6], dtype=torch.float64)
BASIS = torch.linalg.qr(
    torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
)[0]


def gaussian(x, sigma, labels=None):
    """The exact denoiser of N(MEAN, BASIS diag(VARIANCE) BASIS^T)."""
    flat = (x.flatten(1) - MEAN) @ BASIS
    shrunk = flat * VARIANCE / (VARIANCE + sigma[:, None] ** 2)
    return (shrunk @ BASIS.T + MEAN).view_as(x)


def ode_end(start, high, low):
    """Exact solution of the probability-flow ODE of the Gaussian."""
    flat = (start.flatten(1) - MEAN) @ BASIS
    moved = flat * torch.sqrt((VARIANCE + low**2) / (VARIANCE + high**2))
    return (moved @ BASIS.T + MEAN).view_as(start)


def draw(name, steps, count=40, **kwargs):
    options = {key: kwargs.pop(key) for key in list(kwargs) if key in Sampler.__annotations__}
    return draw_images(
        kwargs.pop("denoiser", gaussian), np.arange(count), SHAPE, steps,
        Sampler(name, **options), dtype=torch.float64, **kwargs,
    )  # fmt: skip


def start(steps, count=40, seed=0):
    return torch.from_numpy(start_noise(seed, np.arange(count), SHAPE)).double() * steps[0]


def errors(name, solution, denoiser, counts, low=0.1, high=5.0):
    out = []
    for count in counts:
        steps = noise_steps("exponential", count + 1, low, high)[:-1]
        got = draw(name, steps, denoiser=denoiser)
        out.append(float((got - solution(steps)).abs().mean()))
    return np.array(out)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("ddim", 1), ("heun", 2)])
def test_order_of_convergence_on_a_gaussian(name, order):
    got = errors(name, lambda s: ode_end(start(s), s[0], s[-1]), gaussian, [32, 64, 128, 256])
    np.testing.assert_allclose(np.log2(got[:-1] / got[1:]), order, atol=0.1)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence_on_a_small_dataset(name, order):
    """The exact denoiser of real points, whose ODE has no closed form: against 4,096 steps."""
    points = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def exact(x, sigma, labels=None):
        distance = torch.cdist(x.flatten(1), points).square()
        weight = torch.softmax(-distance / (2 * sigma[:, None] ** 2), dim=1)
        return (weight @ points).view_as(x)

    fine = draw("heun", noise_steps("exponential", 4097, 0.3, 5.0)[:-1], denoiser=exact)
    got = errors(name, lambda s: fine, exact, [64, 128, 256], low=0.3)
    np.testing.assert_allclose(np.log2(got[:-1] / got[1:]), order, atol=0.15)


@pytest.mark.parametrize("name", SAMPLERS)
def test_gaussian_data_keep_mean_and_covariance(name):
    count = 20_000
    steps = noise_steps("exponential", 120, 0.01, 40.0)
    got = draw(name, steps, count=count, churn_noise=1.0).flatten(1)
    covariance = (BASIS * VARIANCE) @ BASIS.T
    # Four standard errors, and a first-order sampler's own error with 120 steps.
    spread = 4 / count**0.5
    assert (got.mean(0) - MEAN).abs().max() < spread * VARIANCE.max() ** 0.5
    assert (torch.cov(got.T) - covariance).abs().max() < 1.5 * spread * VARIANCE.max() + 0.03


def test_ddim_is_the_textbook_formula_of_vp():
    """Eq. 12 of arXiv 2010.02502 in x_t = alpha_t (x0 + sigma eps), with its sigma of eq. 16."""
    steps = noise_steps("vp", 9, 0.02, 20.0)[:-1]
    abar = 1 / (1 + steps**2)
    for eta in (0.0, 0.5, 1.0):
        x = start(steps) * abar[0] ** 0.5
        for k in range(len(steps) - 1):
            eps_index = np.arange(40) * len(steps) + k
            noise = torch.from_numpy(_step_noise(eps_index)).double().view_as(x)
            clean = gaussian(x / abar[k] ** 0.5, torch.full((40,), float(steps[k]), dtype=x.dtype))
            eps = (x - abar[k] ** 0.5 * clean) / (1 - abar[k]) ** 0.5
            after = abar[k + 1]
            fresh = eta * ((1 - after) / (1 - abar[k])) ** 0.5 * (1 - abar[k] / after) ** 0.5
            x = after**0.5 * clean + (1 - after - fresh**2) ** 0.5 * eps + fresh * noise
        got = draw("ddim", steps, eta=eta) * abar[-1] ** 0.5
        assert (got - x).abs().max() < 1e-9, eta
    ancestral = draw("ancestral", steps)
    assert torch.equal(ancestral, draw("ddim", steps, eta=1.0))
    assert (draw("ddim", steps) - draw("euler", steps)).abs().max() < 1e-12


def _step_noise(index):
    from jstar.noise import gaussian as philox
    from jstar.sampling.samplers import STEP

    return philox(STEP << 32, index, 4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_any_split_into_batches_gives_the_same_images(name):
    steps = noise_steps("polynomial", 7, 0.02, 20.0)

    def denoiser(x, sigma, labels=None):  # elementwise, so that no sum depends on the batch
        return torch.tanh(x / (1 + sigma.view(-1, 1, 1, 1) ** 2))

    def images(index, seed=3):
        return draw_images(denoiser, np.array(index), SHAPE, steps, Sampler(name), seed=seed)

    whole = images(range(10))
    parts = torch.cat([images([0]), images(range(1, 7)), images([9, 8, 7]).flip(0)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, images(range(10), seed=4))


def test_all_step_counts_start_from_the_same_noise():
    few, many = (
        draw("heun", noise_steps("exponential", n, 0.01, 20.0), count=5) for n in (40, 400)
    )
    assert (few - many).abs().max() < 0.02


def test_heun_calls_the_network_as_often_as_it_says():
    calls = []

    def counted(x, sigma, labels=None):
        calls.append(1)
        return gaussian(x, sigma)

    for name in SAMPLERS:
        calls.clear()
        draw(name, noise_steps("polynomial", 6, 0.02, 20.0), denoiser=counted)
        assert len(calls) == Sampler(name).evaluations(6)


def test_guidance_moves_away_from_the_answer_without_a_label():
    def denoiser(x, sigma, labels):
        return x * 0 + (1.0 if labels is None else labels.view(-1, 1, 1, 1).double())

    x, sigma, labels = torch.zeros(2, *SHAPE), torch.ones(2), torch.tensor([2, 5])
    got = guided(denoiser, 3.0)(x, sigma, labels)
    assert got[:, 0, 0, 0].tolist() == [1 + 3 * 1, 1 + 3 * 4]
    with pytest.raises(JstarError, match=r"guidance = 3 needs a model .* labels"):
        guided(denoiser, 3.0)(x, sigma, None)


def test_the_exact_denoiser_of_a_dataset_draws_its_points():
    """Memorisation: with D* of 12 uint8 images every sample is one of them."""
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 2, 2), dtype=np.uint8)

    def exact(x, sigma, labels=None):
        return torch.from_numpy(posterior_mean(x.numpy(), images, float(sigma[0])))

    got = draw_images(
        exact, np.arange(60), SHAPE, noise_steps("polynomial", 18, 0.002, 80.0), Sampler("heun")
    )
    nearest = torch.cdist(got.flatten(1), torch.from_numpy(images / 127.5 - 1).flatten(1))
    assert nearest.min(dim=1).values.max() < 1e-3
    assert len(set(nearest.argmin(dim=1).tolist())) > 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sampler("huen"), "'huen' is unknown.*did you mean 'heun'"),
        (lambda: Sampler("ddim", eta=2.0), "eta = 2"),
        (lambda: Sampler("edm", churn=-1.0), "churn must not be below 0"),
        (lambda: draw("euler", np.array([1.0, 2.0])), "must decrease"),
        (
            lambda: draw("euler", np.array([2.0, 1.0]), denoiser=lambda x, s, y: x * np.nan),
            "left the finite numbers",
        ),
    ],
)
def test_refusals(make, words):
    with pytest.raises(JstarError, match=words):
        make()
