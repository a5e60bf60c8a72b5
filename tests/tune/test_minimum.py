"""The minimum of a loss over the learning rate, on losses whose minimum is known."""

import numpy as np
import pytest

from jstar.tune.minimum import AT_EDGE, INSIDE, MOST, REACH, SCATTER, find_minimum, next_rate

FACTORS = [0.35, 0.6, 1.0, 1.7, 2.9]
PRIOR, LEAST, BEND = 0.01, 0.6, 0.3


def bowl(best, bend=BEND):
    """ln loss = ln LEAST + bend / 2 (ln rate / best)^2."""
    return lambda rate: LEAST * np.exp(bend / 2 * np.log(rate / best) ** 2)


def sweep(loss):
    """Every rate that is tried of such a loss, in order."""
    tried = {}
    while (rate := next_rate(tried, PRIOR, FACTORS)) is not None:
        tried[rate] = float(loss(rate))
    return tried


def minimum_of(tried, seed=0):
    rates = np.array(sorted(tried))
    return find_minimum(rates, np.array([tried[rate] for rate in rates]), seed)


@pytest.mark.parametrize("best", [0.0051, 0.0102, 0.0148, PRIOR / 12, PRIOR * 9])
def test_a_parabola_gives_its_minimum_wherever_it_lies(best):
    tried = sweep(bowl(best))
    assert list(tried)[:5] == pytest.approx([PRIOR * f for f in FACTORS], rel=2e-3)
    assert min(tried) < best < max(tried)
    assert len(tried) <= MOST
    assert np.abs(np.log(np.array(list(tried)) / best)).min() < np.log(1.2)  # tried beside it
    got = minimum_of(tried)
    assert got.status == INSIDE
    assert got.rate == float(f"{best:.2g}")
    assert got.loss == pytest.approx(LEAST, rel=1e-3)
    assert got.low < best < got.high
    assert 0 < got.scatter < SCATTER  # less than supposed: these trials had no luck


def test_interval_and_cost_are_those_of_trials_with_other_luck():
    """300 sweeps whose trials scatter: the interval holds the minimum, the cost is its loss."""
    rng, true = np.random.default_rng(0), bowl(0.012)
    held, excess, said = [], [], []

    def lucky(rate):
        return true(rate) * np.exp(0.006 * rng.standard_normal())

    for seed in range(300):
        got = minimum_of(sweep(lucky), seed)
        held.append(got.low <= 0.012 <= got.high)
        excess.append(true(got.rate) / LEAST - 1)
        said.append(got.cost)
    assert np.mean(held) > 0.9
    actual = np.sqrt(np.mean(np.square(excess)))
    assert actual == pytest.approx(np.sqrt(np.mean(np.square(said))), rel=0.5)
    assert actual < 0.006


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_loss_without_a_minimum_ends_at_the_edge(sign):
    tried = sweep(lambda rate: LEAST * rate ** (0.05 * sign))
    reached = min(tried) if sign > 0 else max(tried)
    assert 3 < max(reached / PRIOR, PRIOR / reached) <= REACH
    got = minimum_of(tried)
    assert (got.rate, got.status) == (reached, AT_EDGE)
    step = 2.9 / 1.7 if sign < 0 else 0.6 / 0.35
    assert got.cost == pytest.approx(step**0.05 - 1, rel=0.02)  # what the last step saved
    assert np.isnan(got.low)


def test_a_rate_between_the_best_and_one_that_diverges_is_tried():
    limit, best = 1.5 * PRIOR, bowl(1.3 * PRIOR)
    tried = sweep(lambda rate: best(rate) if rate < limit else np.inf)
    finite = np.array([rate for rate in tried if rate < limit])
    assert PRIOR < finite.max() < limit
    assert np.abs(np.log(finite / (1.3 * PRIOR))).min() < 0.1
    assert minimum_of(tried).rate < limit
    everything = sweep(lambda rate: np.inf)
    assert min(everything) < PRIOR / 3  # downwards, and no further than allowed
    assert len(everything) <= MOST


def test_trials_that_bend_the_wrong_way_give_one_of_them():
    rates = np.array(FACTORS) * PRIOR
    got = find_minimum(rates, np.array([0.600, 0.604, 0.599, 0.604, 0.600]), 0)
    assert got.rate == PRIOR
    assert got.low < PRIOR < got.high
    assert got.cost > 0
