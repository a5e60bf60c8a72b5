"""Totals as trainers log them, against what follows from a known J(sigma)."""

import numpy as np
import pytest

from jstar.diagnose import discrete, preconditioned
from jstar.diagnose.adapters import Adapter, ddpm_sigmas
from jstar.diagnose.measure import harm
from jstar.diagnose.readings import SD, TABLES
from jstar.diagnose.totals import in_other_units, totals

GRID = np.geomspace(0.002, 200, 60)
ADM = discrete(lambda x, t: x, ddpm_sigmas())


def test_a_constant_epsilon_loss_is_that_whatever_the_weights():
    found = totals(GRID, 0.03 * GRID**2, ADM)
    for name in ("eps_uniform_t", "eps_q0", "eps_q1", "eps_q2", "eps_q3", "own"):
        assert found[name] == pytest.approx(0.03, rel=1e-6), name
    sigma_T = ddpm_sigmas()
    assert found["v_uniform_t"] == pytest.approx(0.03 * (1 + sigma_T**2).mean(), rel=1e-3)
    clipped = np.minimum(1, 5 * sigma_T**2).mean()
    assert found["min_snr_5"] == pytest.approx(0.03 * clipped, rel=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "sd"])
def test_gaussian_data_of_unit_variance(schedule):
    """J = s^2 / (1 + s^2): the epsilon loss is 1 / (1 + s^2) = alphas_cumprod, v's loss is 1."""
    sigma_T = ddpm_sigmas() if schedule == "linear" else TABLES[SD]
    found = totals(GRID, GRID**2 / (1 + GRID**2), discrete(lambda x, t: x, sigma_T))
    kept_T = 1 / (1 + sigma_T**2)
    assert found["eps_uniform_t"] == pytest.approx(kept_T.mean(), rel=2e-3)
    assert found["eps_q0"] == pytest.approx(kept_T[:250].mean(), rel=2e-3)
    assert found["eps_q3"] == pytest.approx(kept_T[750:].mean(), rel=2e-2)
    assert found["v_uniform_t"] == pytest.approx(1.0, rel=2e-2)
    # velocity: J (1 + s)^2 / s^2 at s = t / (1 - t) is 1 / (t^2 + (1 - t)^2), pi / 2 in the mean
    assert found["velocity_uniform_t"] == pytest.approx(np.pi / 2, rel=1e-2)


def test_edm_weights_make_the_loss_of_its_output():
    """J = c_out^2 of sigma_data 0.5 is an F loss of 1 everywhere."""
    out = GRID**2 * 0.25 / (GRID**2 + 0.25)
    found = totals(GRID, out, preconditioned(lambda x, t: x, "edm"))
    assert found["edm"] == pytest.approx(1.0, rel=5e-3)
    assert found["own"] == pytest.approx(1.0, rel=5e-3)
    assert "own" not in totals(GRID, out, Adapter("plain", lambda x, s, y: x))


def test_units_of_a_loss_and_the_bound_on_the_sampling_error():
    sigma = np.array([0.1, 1.0, 10.0])
    units = in_other_units(sigma, np.ones(3))
    np.testing.assert_allclose(units["loss_epsilon"], sigma**-2)
    np.testing.assert_allclose(units["loss_v"], 1 + sigma**-2)
    np.testing.assert_allclose(units["loss_velocity"], (1 + 1 / sigma) ** 2)
    np.testing.assert_allclose(harm(sigma, sigma**2), 1 / 3)
