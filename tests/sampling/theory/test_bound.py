"""The bound against closed forms on Gaussian data, simulated paths, and the known crossover."""

from itertools import pairwise

import numpy as np
import pytest

from jstar.errors import JstarError
from jstar.sampling.steps import noise_steps
from jstar.sampling.theory.bound import FROZEN, bound
from jstar.sampling.theory.curves import gap_curve

VARIANCE = np.array([1.0, 0.3, 0.05])
MEAN = np.array([0.4, -0.1, 0.0])
DIM = len(VARIANCE)
SECOND = float((VARIANCE + MEAN**2).mean())
BIAS = 0.03  # of the network, in every dimension
SPACINGS = [("polynomial", 7.0), ("polynomial", 2.0), ("exponential", 0.0), ("flow", 0.0)]


def optimal(sigma):
    s2 = np.asarray(sigma)[:, None] ** 2
    return (VARIANCE * s2 / (VARIANCE + s2)).mean(axis=1)


def gap(sigma):
    return np.full(len(sigma), BIAS**2)


def steps_of(spacing, rho, count=12, low=0.02, high=30.0):
    return noise_steps(spacing, count, low, high, rho or 7.0)[:-1]


def closed_form(sampler, s):
    """E_S and E_D of the Gaussian in logarithms, summed over dimensions."""
    a2, b2 = s[:-1, None] ** 2, s[1:, None] ** 2
    if sampler == "ancestral":
        width = 1 / b2 - 1 / a2
        start = VARIANCE * a2 / (VARIANCE + a2)
        lost = start * width - np.log((1 + VARIANCE / b2) / (1 + VARIANCE / a2))
    else:
        width = (a2 - b2) / a2**2
        lost = np.log((VARIANCE + a2) / (VARIANCE + b2)) - (a2 - b2) / (VARIANCE + a2)
    return 0.5 * DIM * BIAS**2 * width.sum(), 0.5 * lost.sum()


def image_kl(sampler, s):
    """Exact KL of the data at sigma_min to what the sampler draws: Gaussians all the way."""
    mean, variance = np.zeros(DIM), np.full(DIM, s[0] ** 2)
    for a, b in pairwise(s):
        shrink = VARIANCE / (VARIANCE + a**2)
        share = 1 - b**2 / a**2
        fresh = share * (b**2 if sampler == "ancestral" else a**2)
        # The network's answer is shrink x + offset; both samplers move x a share of the way to it.
        offset = (1 - shrink) * MEAN + BIAS
        mean = mean + share * (shrink * mean + offset - mean)
        variance = (1 + share * (shrink - 1)) ** 2 * variance + fresh
    ratio = (VARIANCE + s[-1] ** 2) / variance
    return 0.5 * float((ratio - 1 - np.log(ratio) + (MEAN - mean) ** 2 / variance).sum())


@pytest.mark.parametrize("sampler", FROZEN)
@pytest.mark.parametrize(("spacing", "rho"), SPACINGS)
@pytest.mark.parametrize("count", [2, 12, 300])
def test_the_parts_in_closed_form(sampler, spacing, rho, count):
    s = steps_of(spacing, rho, count)
    got = bound(sampler, s, optimal, gap, dim=DIM, second_moment=SECOND)
    score, discretisation = closed_form(sampler, s)
    assert got.score == pytest.approx(score, rel=1e-9)
    assert got.discretisation == pytest.approx(discretisation, rel=1e-6, abs=1e-9)
    ratio = (VARIANCE + s[0] ** 2) / s[0] ** 2
    initial = 0.5 * (ratio - 1 - np.log(ratio) + MEAN**2 / s[0] ** 2).sum()
    assert got.initial == pytest.approx(initial, rel=1e-6)
    assert got.initial <= 0.5 * DIM * SECOND / s[0] ** 2


@pytest.mark.parametrize("sampler", FROZEN)
@pytest.mark.parametrize(("spacing", "rho"), SPACINGS)
def test_it_bounds_the_error_of_the_images(sampler, spacing, rho):
    for count in (4, 12, 60, 400):
        s = steps_of(spacing, rho, count)
        got = bound(sampler, s, optimal, gap, dim=DIM, second_moment=SECOND).total
        assert image_kl(sampler, s) <= got


def test_a_last_step_to_zero_changes_nothing():
    s = noise_steps("polynomial", 9, 0.02, 30.0)
    one = bound("sde", s, optimal, gap, dim=DIM, second_moment=SECOND)
    assert one == bound("sde", s[:-1], optimal, gap, dim=DIM, second_moment=SECOND)


def test_denoiser_and_score_are_martingales_downwards():
    """The identity behind E_D on data that are no Gaussian: the points -1 and 1."""
    rng = np.random.default_rng(0)
    x0 = rng.choice([-1.0, 1.0], 400_000)
    low, high = 0.7, 1.1
    x_low = x0 + low * rng.normal(size=x0.size)
    x_high = x_low + np.sqrt(high**2 - low**2) * rng.normal(size=x0.size)
    clean = {s: np.tanh(x / s**2) for s, x in ((low, x_low), (high, x_high))}
    score = {low: (clean[low] - x_low) / low**2, high: (clean[high] - x_high) / high**2}
    loss = {s: 1 - (d**2).mean() for s, d in clean.items()}
    fisher = {s: (1 - loss[s] / s**2) / s**2 for s in loss}
    moved = ((clean[low] - clean[high]) ** 2).mean()
    assert moved == pytest.approx(loss[high] - loss[low], rel=0.02)
    turned = ((score[low] - score[high]) ** 2).mean()
    assert turned == pytest.approx(fisher[low] - fisher[high], rel=0.02)


@pytest.mark.parametrize("count", [18, 64])
def test_the_crossover_from_polynomial_to_exponential(count):
    """Little trained: E_S rules, polynomial is better. Well trained: exponential.

    Data near a manifold, as images are: two directions of eight have any variance. (On smooth data
    polynomial steps win always: nothing happens at small noise scales.)
    """
    variance = np.array([1.0, 0.3, 0, 0, 0, 0, 0, 0])

    def flat(sigma):
        s2 = np.asarray(sigma)[:, None] ** 2
        return (variance * s2 / (variance + s2)).mean(axis=1)

    def better(trained):
        totals = {
            name: bound(
                "sde", noise_steps(name, count, 0.002, 80.0), flat,
                lambda s: (1 - trained) * 0.1 * s**2 / (0.1 + s**2), dim=8, second_moment=0.17,
            ).total
            for name in ("polynomial", "exponential")
        }  # fmt: skip
        return min(totals, key=totals.__getitem__)

    assert better(trained=0.0) == "polynomial"
    assert better(trained=0.999) == "exponential"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bound("heun", steps_of("flow", 0), optimal, gap, dim=1, second_moment=1),
         "no bound for the sampler 'heun', only for ancestral, sde"),
        (lambda: bound("sde", np.array([1.0, 2.0]), optimal, gap, dim=1, second_moment=1),
         "must decrease"),
        (lambda: gap_curve(np.geomspace(0.1, 1, 5), np.ones(5))(np.array([2.0])),
         "the gap was measured for noise scales from 0.1 to 1, asked is for 2"),
        (lambda: gap_curve(np.geomspace(0.1, 1, 3), np.ones(3)), "at 3 noise scales"),
        (lambda: gap_curve(np.geomspace(0.1, 1, 5), -np.ones(5)), "not negative"),
    ],
)  # fmt: skip
def test_refusals(make, words):
    with pytest.raises(JstarError, match=words):
        make()
