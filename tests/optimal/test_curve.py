"""The estimate against float64 brute force on the same draws, and what follows from the curve."""

import numpy as np
import pytest
import torch
from brute import pair_form
from sklearn.datasets import load_digits

from jstar.errors import JstarError
from jstar.noise import process, sigma_grid
from jstar.optimal import optimal_loss
from jstar.optimal.draws import noise, split_int8, systematic_sources
from jstar.optimal.moments import measure_moments
from jstar.optimal.points import as_points

SIGMAS = sigma_grid(0.05, 20, 17)
DIGITS = {"offset": 8.0, "scale": 1 / 8}


@pytest.fixture(scope="module")
def digits():
    return load_digits().images.astype(np.uint8)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("antithetic", [True, False])
def test_pair_form_equals_float64_brute_force_on_the_same_draws(digits, precision, antithetic):
    queries = 64
    curve = optimal_loss(
        digits, SIGMAS, queries=queries, seed=3, form="pair", precision=precision,
        antithetic=antithetic, **DIGITS,
    )  # fmt: skip
    points = as_points(digits, **DIGITS)
    moments = measure_moments(points, torch.device("cpu"))
    source_M = systematic_sources(moments.half_norm_N, queries, 3)
    eps_MD = noise(3, np.arange(queries), 64)
    eps = eps_MD.double().numpy()
    if precision == "int8":
        term_KMD, step_KM = split_int8(eps_MD, 2)
        eps = (term_KMD.double() * step_KM.double()[:, :, None]).sum(0).numpy()
    x_ND = (digits.reshape(-1, 64) - 8.0) / 8
    for s, sigma in enumerate(SIGMAS):
        expected = pair_form(x_ND[source_M], eps, x_ND, sigma)
        if antithetic:
            expected = (expected + pair_form(x_ND[source_M], -eps, x_ND, sigma)) / 2
        found, wanted = curve.loss[s], expected.mean() / 64
        assert abs(found - wanted) <= max(1e-4 * wanted, 1e-7 * curve.variance)
        assert abs(found - wanted) <= 2e-5 * wanted + 1e-12


def test_closure_of_digits_is_log_count(digits):
    curve = optimal_loss(digits, SIGMAS, queries=1797, **DIGITS)
    got, expected = curve.closure
    assert expected == pytest.approx(np.log(1797))
    assert got == pytest.approx(expected, rel=0.01)


def test_controls_agree_with_the_plain_form_and_have_smaller_errors(digits):
    controlled = optimal_loss(digits, SIGMAS, queries=1024, **DIGITS)
    plain = optimal_loss(digits, SIGMAS, queries=1024, form="pair", **DIGITS)
    far = np.abs(controlled.loss - plain.loss) / np.maximum(plain.stderr, 1e-300)
    assert (far < 4).all()
    assert (controlled.stderr <= plain.stderr).all()
    assert controlled.stderr[10] < 0.8 * plain.stderr[10]


def test_same_seed_same_numbers_other_seed_other_numbers(digits):
    first = optimal_loss(digits, SIGMAS, queries=64, seed=1, **DIGITS)
    again = optimal_loss(digits, SIGMAS, queries=64, seed=1, **DIGITS)
    other = optimal_loss(digits, SIGMAS, queries=64, seed=2, **DIGITS)
    assert (first.loss == again.loss).all()
    assert (first.loss[8:] != other.loss[8:]).all()


def test_by_class_is_the_mean_of_the_classes(digits):
    labels = load_digits().target
    whole = optimal_loss(
        digits, [0.5, 1.0, 2.0], estimator="exact_by_class", labels=labels, queries=1797,
        form="pair", **DIGITS,
    )  # fmt: skip
    parts = [
        optimal_loss(digits[labels == c], [0.5, 1.0, 2.0], queries=400, form="pair", **DIGITS)
        for c in range(10)
    ]
    share = np.bincount(labels) / len(labels)
    mean = sum(f * p.loss for f, p in zip(share, parts, strict=True))
    error = np.sqrt(sum((f * p.stderr) ** 2 for f, p in zip(share, parts, strict=True)))
    assert (np.abs(whole.loss - mean) < 4 * np.hypot(error, whole.stderr)).all()
    assert whole.closure[1] == pytest.approx((share * np.log(np.bincount(labels))).sum())


def test_mirroring_equals_data_with_the_mirror_images_added(digits):
    mirrored = optimal_loss(digits, SIGMAS, mirror=True, queries=1500, **DIGITS)
    both = np.concatenate([digits, digits[..., ::-1]])
    added = optimal_loss(both, SIGMAS, queries=1500, seed=5, **DIGITS)
    error = np.hypot(mirrored.stderr, added.stderr)
    assert mirrored.count == 2 * len(digits)
    assert (np.abs(mirrored.loss - added.loss)[6:] < 4 * error[6:]).all()


def test_interpolation_is_monotone_and_close(digits):
    coarse = optimal_loss(digits, SIGMAS, queries=1797, **DIGITS)
    between = np.sqrt(SIGMAS[1:] * SIGMAS[:-1])
    truth = optimal_loss(digits, between, queries=1797, **DIGITS)
    value, error = coarse.at(between)
    fine = coarse.at(np.geomspace(0.05, 20, 500))[0]
    assert (np.diff(fine) >= 0).all()
    assert (np.abs(value - truth.loss) < 4 * np.hypot(error, truth.stderr) + 1e-9).all()
    with pytest.raises(JstarError, match="outside the curve"):
        coarse.at(30.0)


def test_total_is_the_weighted_sum_and_targets_convert(digits):
    curve = optimal_loss(digits, SIGMAS, queries=256, **DIGITS)
    edm = process("edm")
    value, error = curve.total(edm)
    from jstar.noise import total_weights

    assert value == pytest.approx(total_weights(edm, SIGMAS) @ curve.loss)
    assert 0 < error < value
    loss, _ = curve.converted("fm", "velocity")
    t = SIGMAS / (1 + SIGMAS)
    assert np.allclose(loss, curve.loss / t**2)
