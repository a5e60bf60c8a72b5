"""Processes against their definitions: METHOD section 2's table, read the other way round."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from jstar.errors import JstarError
from jstar.noise import (
    PROCESSES,
    gaussian,
    histogram,
    process,
    sigma_grid,
    target_ratio,
    total_weights,
    vp_time,
)

SIGMAS = np.geomspace(0.02, 80, 9)


@pytest.mark.parametrize("name", PROCESSES)
def test_density_is_the_derivative_of_the_quantile(name):
    law = process(name).law
    u = np.linspace(0.05, 0.95, 19)
    h = 1e-5
    slope = (np.log(law.quantile(u + h)) - np.log(law.quantile(u - h))) / (2 * h)
    np.testing.assert_allclose(law.density(law.quantile(u)), 1 / slope, rtol=1e-3)


@pytest.mark.parametrize("name", PROCESSES)
def test_density_integrates_to_one(name):
    law = process(name).law
    total, _ = quad(
        lambda z: float(law.density(np.exp(z))), -25, 25, points=[-4, 0, 4.7], limit=800
    )
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "network_output"),
    [
        ("vp", lambda x0, e, s: e),
        ("ve", lambda x0, e, s: -e),
        ("v", lambda x0, e, s: (e - s * x0) / np.sqrt(1 + s * s)),
        ("fm", lambda x0, e, s: e - x0),
        ("sd3", lambda x0, e, s: e - x0),
    ],
)
def test_preconditioning_turns_the_true_target_into_the_clean_image(name, network_output):
    rng = np.random.default_rng(0)
    x0, eps = rng.normal(size=(2, 5, 1, 2, 2))
    for sigma in SIGMAS:
        s = np.full(5, sigma)
        out = process(name).denoise(
            lambda x, c, out=network_output(x0, eps, sigma): out, x0 + sigma * eps, s
        )
        np.testing.assert_allclose(out, x0, rtol=1e-9, atol=1e-8 * sigma)


@pytest.mark.parametrize("name", ["edm", "edm2"])
def test_edm_network_input_and_target_have_unit_variance(name):
    sd = 0.7
    p = process(name, sigma_data=sd)
    assert p.c_in(SIGMAS) ** 2 * (sd**2 + SIGMAS**2) == pytest.approx(1)
    # target (x0 - c_skip x) / c_out for x0 of variance sd^2
    variance = ((1 - p.c_skip(SIGMAS)) ** 2 * sd**2 + p.c_skip(SIGMAS) ** 2 * SIGMAS**2) / p.c_out(
        SIGMAS
    ) ** 2
    assert variance == pytest.approx(1)
    assert p.weight(SIGMAS) * p.c_out(SIGMAS) ** 2 == pytest.approx(1)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("target", ["epsilon", "score", "v", "velocity", "F"])
def test_target_ratio_is_the_ratio_of_squared_errors(name, target):
    """A wrong x0 at given x is a wrong target; their squared errors have the stated ratio."""
    p = process(name)
    for sigma in SIGMAS:
        x0, wrong, x = 0.3, 0.9, 0.3 + sigma * 1.7
        alpha = p.alpha(np.float64(sigma))
        sigma_t = alpha * sigma

        def value(clean, x=x, sigma=sigma, alpha=alpha, sigma_t=sigma_t):
            eps = (x - clean) / sigma
            return {
                "epsilon": eps,
                "score": -eps / sigma_t,
                "v": alpha * eps - sigma_t * clean,
                "velocity": eps - clean,
                "F": (clean - p.c_skip(sigma) * x) / p.c_out(sigma),
            }[target]

        expected = (value(x0) - value(wrong)) ** 2 / (x0 - wrong) ** 2
        assert target_ratio(p, target, sigma) == pytest.approx(expected, rel=1e-9)


def test_target_ratios_of_the_method_page():
    s = SIGMAS
    assert target_ratio("vp", "v", s) == pytest.approx((1 + s * s) / s**2)  # 1 / sigma_t^2
    assert target_ratio("fm", "velocity", s) == pytest.approx(((1 + s) / s) ** 2)  # 1 / t^2
    assert target_ratio("edm", "x0", s * 1.0) == pytest.approx(1)
    assert target_ratio("vp", "score", s) == pytest.approx((1 + s * s) / s**4)  # alpha^2/sigma_t^4


@pytest.mark.parametrize("name", PROCESSES)
def test_numpy_and_torch_agree(name):
    p = process(name)
    u = np.linspace(0.01, 0.99, 7)
    for f in (p.weight, p.c_skip, p.c_out, p.c_in, p.c_noise, p.alpha, p.law.density):
        np.testing.assert_allclose(f(torch.tensor(SIGMAS)).numpy(), f(SIGMAS), rtol=1e-12)
    np.testing.assert_allclose(
        p.law.quantile(torch.tensor(u)).numpy(), p.law.quantile(u), rtol=1e-12
    )


def test_a_histogram_law_is_uniform_in_each_bin_and_keeps_its_masses():
    edges, mass = np.array([0.1, 0.3, 2.0, 5.0]), np.array([1.0, 3.0, 4.0])
    law = histogram(edges, mass)
    u = (np.arange(8000) + 0.5) / 8000
    log_sigma = np.log(law.quantile(u))
    for k in range(3):
        low, high = np.log(edges[k : k + 2])
        inside = log_sigma[(log_sigma >= low) & (log_sigma < high)]
        assert len(inside) == pytest.approx(1000 * mass[k], abs=1)
        assert inside.mean() == pytest.approx((low + high) / 2, abs=1e-3)
        assert law.density(np.sqrt(edges[k] * edges[k + 1])) == pytest.approx(
            mass[k] / 8 / (high - low)
        )
    assert (law.density(np.array([0.09, 5.1])) == 0).all()
    assert law.quantile(np.array([0.0, 1.0])) == pytest.approx(edges[[0, -1]])
    torch.testing.assert_close(law.quantile(torch.tensor(u)).numpy(), law.quantile(u))
    torch.testing.assert_close(law.density(torch.tensor(edges)).numpy(), law.density(edges))


def test_vp_time_inverts_the_schedule():
    t = np.array([1e-5, 0.01, 0.3, 1.0])
    sigma = np.sqrt(np.expm1(0.5 * 19.9 * t**2 + 0.1 * t))
    np.testing.assert_allclose(vp_time(sigma), t, rtol=1e-10)


def test_min_snr_caps_the_weight():
    p = process("vp", min_snr_gamma=5)
    assert p.weight(np.array([0.01, 1.0, 10.0])) == pytest.approx([5, 1, 0.01])


def test_total_weights_integrate_the_training_objective():
    p, grid = process("edm"), sigma_grid(0.002, 200, 400)
    loss = grid**2 / (1 + grid**2)

    def density(z):
        s = np.exp(z)
        return float(p.law.density(s) * p.weight(s) * s * s / (1 + s * s))

    expected, _ = quad(density, np.log(0.002), np.log(200))
    assert total_weights(p, grid) @ loss == pytest.approx(expected, rel=1e-4)


def test_gaussian_rows_depend_only_on_seed_and_index():
    both = gaussian(3, np.array([5, 9]), 4)
    np.testing.assert_array_equal(both[1], gaussian(3, np.array([9]), 4)[0])
    assert not np.array_equal(both[0], gaussian(4, np.array([5]), 4)[0])
    many = gaussian(0, np.arange(2000), 16)
    assert abs(many.mean()) < 4 / np.sqrt(many.size)
    assert many.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: process("edn"), ["'edn'", "did you mean 'edm'", "allowed are"]),
        (lambda: process("fm", mean=0.1), ["'fm'", "mean and std are not allowed"]),
        (lambda: process("edm", sigma_data=-1), ["sigma_data = -1"]),
        (lambda: target_ratio("edm", "eps", 1.0), ["'eps'", "epsilon"]),
        (lambda: total_weights(process("edm"), [1.0]), ["at least 2"]),
        (lambda: histogram(np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0])), ["mass above 0"]),
    ],
)
def test_mistakes_are_one_sentence(call, words):
    with pytest.raises(JstarError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
