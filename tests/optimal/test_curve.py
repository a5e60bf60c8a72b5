"""The estimate against the textbook on the same draws, and what follows from the curve."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from jstar.noise import sigma_grid
from jstar.optimal import optimal_loss
from jstar.optimal.draws import gaussian_noise, quantised_noise, systematic_sources
from jstar.optimal.exact.control_variates import controls_at, project_draws
from jstar.optimal.exact.data_moments import measure_moments
from jstar.optimal.exact.pair_form import PairForm
from jstar.optimal.exact.problem import pose_problem
from jstar.optimal.exact.regression import regress
from jstar.optimal.points import as_points
from jstar.optimal.textbook import best_denoiser, draw_losses, pair_losses

SIGMAS = sigma_grid(0.05, 20, 17)
DIGITS = {"offset": 8.0, "scale": 1 / 8}


@pytest.fixture(scope="module")
def digits():
    return load_digits().images.astype(np.uint8)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("antithetic", [True, False])
def test_pair_form_equals_the_textbook_on_the_same_draws(digits, precision, antithetic):
    queries = 64
    curve = optimal_loss(
        digits, SIGMAS, queries=queries, seed=3, form="pair", precision=precision,
        antithetic=antithetic, **DIGITS,
    )  # fmt: skip
    points = as_points(digits, **DIGITS)
    moments = measure_moments(points, torch.device("cpu"))
    source_M = systematic_sources(moments.half_norm_N, queries, 3)
    eps_MD = gaussian_noise(3, np.arange(queries), 64)
    eps = eps_MD.double().numpy()
    if precision == "int8":
        term_MD, step_M = quantised_noise(eps_MD)
        eps = (term_MD.double() * step_M.double()[:, None]).numpy()
    x_ND = (digits.reshape(-1, 64) - 8.0) / 8
    for s, sigma in enumerate(SIGMAS):
        expected = pair_losses(x_ND[source_M], eps, x_ND, sigma)
        if antithetic:
            expected = (expected + pair_losses(x_ND[source_M], -eps, x_ND, sigma)) / 2
        found, wanted = curve.loss[s], expected.mean()
        assert abs(found - wanted) <= max(1e-4 * wanted, 1e-7 * curve.variance)
        assert abs(found - wanted) <= 2e-5 * wanted + 1e-12


def test_the_curve_is_the_loss_of_the_definition(digits):
    curve = optimal_loss(digits, SIGMAS[8:], queries=1797, **DIGITS)
    x_ND = (digits.reshape(-1, 64) - 8.0) / 8
    eps_MD = np.random.default_rng(0).standard_normal((500, 64))
    x0_MD = x_ND[np.random.default_rng(1).choice(1797, 500)]
    for sigma, found in zip(SIGMAS[8:], curve.loss, strict=True):
        loss_M = draw_losses(x0_MD, eps_MD, x_ND, sigma)
        assert abs(loss_M.mean() - found) < 4 * loss_M.std() / np.sqrt(500)


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


@pytest.mark.parametrize("mirror", [False, True])
def test_moment_form_is_the_textbooks_about_the_mean(digits, mirror):
    points = as_points(digits, mirror=mirror, **DIGITS)
    moments = measure_moments(points, torch.device("cpu"))
    curve = optimal_loss(
        digits, SIGMAS, queries=50, seed=3, form="moment", precision="fp32", antithetic=False,
        mirror=mirror, **DIGITS,
    )  # fmt: skip
    source_M = systematic_sources(moments.half_norm_N, 50, 3)
    x_ND = (points.take(np.arange(len(points))).double() - moments.anchor_D).numpy() / 8
    eps_MD = gaussian_noise(3, np.arange(50), 64).double().numpy()
    for s, sigma in enumerate(SIGMAS):
        mean_MD = best_denoiser(x_ND[source_M] + sigma * eps_MD, x_ND, sigma)
        expected = (x_ND**2).sum(1).mean() - (mean_MD**2).sum(1).mean()
        assert curve.loss[s] == pytest.approx(expected / 64, rel=1e-5, abs=1e-6)
    assert set(curve.form) == {"moment"}


def test_moment_form_by_class_agrees_with_the_pair_form(digits):
    options = {"estimator": "exact_by_class", "labels": load_digits().target, "queries": 1797}
    moment = optimal_loss(digits, [1.0, 3.0], form="moment", **options, **DIGITS)
    pair = optimal_loss(digits, [1.0, 3.0], **options, **DIGITS)
    assert (np.abs(moment.loss - pair.loss) < 4 * np.hypot(moment.stderr, pair.stderr)).all()
    assert moment.stderr[0] > pair.stderr[0]


def test_same_seed_same_numbers_other_seed_other_numbers(digits):
    first = optimal_loss(digits, SIGMAS, queries=64, seed=1, **DIGITS)
    again = optimal_loss(digits, SIGMAS, queries=64, seed=1, **DIGITS)
    other = optimal_loss(digits, SIGMAS, queries=64, seed=2, **DIGITS)
    assert (first.loss == again.loss).all()
    assert (first.loss[8:] != other.loss[8:]).all()


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_two_threads_give_the_same_numbers(digits, precision):
    one = optimal_loss(digits, SIGMAS, queries=300, precision=precision, **DIGITS)
    torch.set_num_threads(2)
    try:
        two = optimal_loss(digits, SIGMAS, queries=300, precision=precision, **DIGITS)
    finally:
        torch.set_num_threads(1)
    assert np.allclose(one.loss, two.loss, rtol=1e-6, atol=1e-12)


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


def test_label_drop_is_the_mixture_of_both_losses_on_the_same_draws(digits):
    labels, drop, queries = load_digits().target, 0.25, 64
    options = {"estimator": "exact_by_class", "labels": labels, "queries": queries, "seed": 3}
    curve = optimal_loss(digits, SIGMAS, label_drop=drop, form="pair", precision="fp32",
                         antithetic=False, **options, **DIGITS)  # fmt: skip
    half_norm_N = measure_moments(as_points(digits, **DIGITS), torch.device("cpu")).half_norm_N
    source_M = systematic_sources(half_norm_N, queries, 3, labels)
    eps_MD = gaussian_noise(3, np.arange(queries), 64).double().numpy()
    x_ND = (digits.reshape(-1, 64) - 8.0) / 8
    for s, sigma in enumerate(SIGMAS):
        whole = pair_losses(x_ND[source_M], eps_MD, x_ND, sigma).mean()
        own = [
            pair_losses(x_ND[[i]], eps_MD[[m]], x_ND[labels == labels[i]], sigma)[0]
            for m, i in enumerate(source_M)
        ]
        expected = (1 - drop) * np.mean(own) + drop * whole
        assert curve.loss[s] == pytest.approx(expected, rel=1e-4, abs=1e-8)
    share = np.bincount(labels) / len(labels)
    by_class, whole = (share * np.log(np.bincount(labels))).sum(), np.log(len(labels))
    assert curve.closure[1] == pytest.approx((1 - drop) * by_class + drop * whole)
    controlled = optimal_loss(digits, SIGMAS, label_drop=drop, **options, **DIGITS)
    error = np.hypot(curve.stderr, controlled.stderr)
    assert (np.abs(curve.loss - controlled.loss) < 4 * error + 1e-12).all()
    assert (controlled.stderr <= curve.stderr).all()


def test_the_regression_leaves_each_draw_out_of_its_own_coefficients():
    """The estimate and each draw's influence on it equal refits without that draw."""
    random, count = np.random.default_rng(0), 40
    control_MV = random.standard_normal((count, 2))
    noise_M = 0.3 * random.standard_normal(count) * (1 + 3 * np.abs(control_MV[:, 0]))
    pair_M = np.abs(5 + control_MV @ [1.0, -0.5] + noise_M)
    design = np.column_stack([np.ones(count), control_MV])
    whole = np.linalg.lstsq(design, pair_M)[0]
    without = np.array([
        np.linalg.lstsq(np.delete(design, m, 0), np.delete(pair_M, m))[0] for m in range(count)
    ])  # fmt: skip
    found = regress(pair_M, control_MV, total=1.0)
    assert found.form == "pair+controls"
    corrected_M = pair_M - (control_MV * without[:, 1:]).sum(1)
    assert found.value == pytest.approx(corrected_M.mean(), rel=1e-12)
    np.testing.assert_allclose(found.residual_M, count * (whole - without)[:, 0], atol=1e-9)


@pytest.mark.parametrize("by_class", [False, True])
def test_control_variates_have_mean_zero(digits, by_class):
    labels = load_digits().target if by_class else None
    problem = pose_problem(
        as_points(digits, **DIGITS), [1.0, 3.0, 20.0], queries=4 * 1797, antithetic=False,
        estimator="exact_by_class" if by_class else "exact", labels=labels,
    )  # fmt: skip
    sums, draws = PairForm().sums(problem, (1, 1), None), project_draws(problem)
    for s, sigma in enumerate(problem.sigma_S):
        control_MV = controls_at(sigma * 8, sums[:, :, s], draws, problem.moments)
        assert control_MV.shape[1] == 9
        far = control_MV.mean(0) / np.maximum(control_MV.std(0), 1e-9) * np.sqrt(len(control_MV))
        assert (np.abs(far) < 4).all()
    # Every image four times: what depends on the source alone has no scatter left at all.
    assert np.abs(control_MV[:, [0, 5]].mean(0)).max() < 1e-4 * control_MV[:, 0].std()


def test_the_error_is_nowhere_above_that_of_the_moment_form(digits):
    sigmas = SIGMAS[4:]
    for antithetic in (True, False):
        options = {"queries": 1797, "antithetic": antithetic, **DIGITS}
        ours = optimal_loss(digits, sigmas, **options)
        moment = optimal_loss(digits, sigmas, form="moment", **options)
        assert (ours.stderr <= moment.stderr).all()
        assert (np.abs(ours.loss - moment.loss) < 4 * moment.stderr).all()
    assert ours.stderr[-1] < 0.8 * moment.stderr[-1]


def test_by_class_the_largest_noise_scale_has_the_variance_within_classes(digits):
    labels = load_digits().target
    curve = optimal_loss(digits, [500.0], estimator="exact_by_class", labels=labels,
                         queries=1797, **DIGITS)  # fmt: skip
    x_ND = (digits.reshape(-1, 64) - 8.0) / 8
    within = sum(x_ND[labels == c].var(axis=0).sum() * (labels == c).mean() for c in range(10))
    assert curve.variance == pytest.approx(within / 64, rel=1e-6)
    assert curve.loss[0] == pytest.approx(within / 64, rel=1e-3)


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
