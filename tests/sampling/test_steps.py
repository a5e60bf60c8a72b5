"""Noise scales of a sampler: ends, order, and what each is equal steps of."""

import numpy as np
import pytest

from jstar.config.choices import SPACINGS
from jstar.errors import JstarError
from jstar.noise import vp_time
from jstar.sampling.steps import noise_steps, theory_rho


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [2, 3, 18, 400])
def test_every_spacing_ends_where_it_is_told(spacing, count):
    steps = noise_steps(spacing, count, 0.002, 80.0)
    assert len(steps) == count + 1
    assert (np.diff(steps) < 0).all()
    assert (steps[0], steps[-2], steps[-1]) == (80.0, 0.002, 0.0)


@pytest.mark.parametrize(
    ("spacing", "clock"),
    [
        ("polynomial", lambda s: s ** (1 / 7)),
        ("exponential", np.log),
        ("vp", vp_time),
        ("cosine", np.arctan),
        ("flow", lambda s: s / (1 + s)),
    ],
)
def test_steps_are_equal_in_the_spacings_own_clock(spacing, clock):
    ticks = clock(noise_steps(spacing, 12, 0.01, 50.0)[:-1])
    np.testing.assert_allclose(np.diff(ticks), np.diff(ticks)[0], rtol=1e-9)


def test_edm_numbers():
    """The first noise scales of EDM's 18 steps (arXiv 2206.00364, eq. 5)."""
    got = noise_steps("polynomial", 18, 0.002, 80.0)
    np.testing.assert_allclose(got[:3], [80.0, 57.58598, 40.78557], rtol=1e-6)


def test_a_large_rho_is_exponential_spacing():
    polynomial = noise_steps("polynomial", 30, 0.002, 80.0, rho=1e6)
    np.testing.assert_allclose(
        polynomial, noise_steps("exponential", 30, 0.002, 80.0), rtol=1e-4, atol=0
    )


def test_the_rho_of_the_theory():
    assert theory_rho(0.002, 80.0) == pytest.approx(5.298, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("polynomal", 18, 0.002, 80.0), "'polynomal' is unknown.*did you mean 'polynomial'"),
        (("exponential", 1, 0.002, 80.0), "steps = 1"),
        (("exponential", 18, 80.0, 0.002), "from 80 to 0.002"),
        (("exponential", 18, 0.0, 80.0), "must be positive"),
        (("polynomial", 18, 0.002, 80.0, -1.0), "rho = -1"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(JstarError, match=words):
        noise_steps(*arguments)
