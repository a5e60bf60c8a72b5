"""The minimum of a loss over the learning rate, on losses whose minimum is known."""

import numpy as np
import pytest

from jstar.tune.minimum import AT_EDGE, INSIDE, MOST, REACH, find_minimum, next_rate

FACTORS = [0.35, 0.6, 1.0, 1.7, 2.9]
PRIOR, FLOOR, BEND = 0.01, 0.5, 0.3


def bowl(best, bend=BEND, least=0.6):
    """ln loss = ln least + bend / 2 (ln rate / best)^2."""
    return lambda rate: least * np.exp(bend / 2 * np.log(rate / best) ** 2)


def sweep(loss, prior=PRIOR):
    """Every rate that is tried of such a loss, in order."""
    tried = {}
    while (rate := next_rate(tried, prior, FACTORS)) is not None:
        tried[rate] = float(loss(rate))
    return tried


def exact(tried):
    """The minimum by trials without errors."""
    rates = np.array(sorted(tried))
    gap_T = np.array([tried[rate] for rate in rates]) - FLOOR
    return rates, find_minimum(rates, gap_T[:, None] + np.zeros(8), FLOOR, 0)


@pytest.mark.parametrize("best", [0.0051, 0.0102, 0.0148])
def test_a_parabola_gives_its_minimum(best):
    rates, got = exact(sweep(bowl(best)))
    assert got.status == INSIDE
    assert got.rate == float(f"{best:.2g}")
    assert got.loss == pytest.approx(0.6, rel=1e-3)
    assert got.low == pytest.approx(best, rel=1e-6)
    assert got.high == pytest.approx(best, rel=1e-6)
    near = rates[np.argsort(np.abs(np.log(rates / best)))[:3]]
    half_step = np.log(near.max() / near.min()) / 4
    assert got.cost == pytest.approx(BEND / 2 * half_step**2, rel=1e-6)


@pytest.mark.parametrize("best", [PRIOR / 12, PRIOR * 9])
def test_a_minimum_beyond_the_factors_is_reached(best):
    tried = sweep(bowl(best))
    assert list(tried)[:5] == pytest.approx([PRIOR * f for f in FACTORS], rel=2e-3)
    assert min(tried) < best < max(tried)
    assert len(tried) <= MOST
    rates = np.array(sorted(tried))
    assert np.abs(np.log(rates / best)).min() < np.log(1.1)  # tried beside its minimum


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_loss_without_a_minimum_ends_at_the_edge(sign):
    tried = sweep(lambda rate: 0.6 * rate ** (0.05 * sign))
    reached = min(tried) if sign > 0 else max(tried)
    assert 1 / REACH <= reached / PRIOR <= REACH
    _, got = exact(tried)
    assert (got.rate, got.status) == (reached, AT_EDGE)
    step = 2.9 / 1.7 if sign < 0 else 0.6 / 0.35
    assert got.cost == pytest.approx(step**0.05 - 1, rel=0.02)  # what the last step saved


def test_a_rate_between_the_best_and_one_that_diverges_is_tried():
    limit = 1.5 * PRIOR
    tried = sweep(lambda rate: bowl(1.3 * PRIOR)(rate) if rate < limit else np.inf)
    finite = [rate for rate in tried if rate < limit]
    assert PRIOR < max(finite) < limit
    assert min(np.abs(np.log(np.array(finite) / (1.3 * PRIOR)))) < 0.1
    everything = sweep(lambda rate: np.inf)
    assert min(everything) < PRIOR / 3  # downwards, and no further than allowed
    assert len(everything) <= MOST


def test_the_interval_is_that_of_repeated_draws():
    """In 300 sets of 64 draws it holds the true minimum about as often as it says, 95 %."""
    rates = PRIOR * np.array([0.6, 1.0, 1.7])
    mean_T = np.array([bowl(PRIOR)(rate) for rate in rates]) - FLOOR
    rng = np.random.default_rng(1)
    seen = []
    for seed in range(300):
        noise = 0.05 * rng.standard_normal((3, 64)) + 0.3 * rng.standard_normal(64)
        got = find_minimum(rates, mean_T[:, None] + noise, FLOOR, seed)
        seen.append(got.low <= PRIOR <= got.high)
    assert 0.9 < np.mean(seen) <= 0.99
