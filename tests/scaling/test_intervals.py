"""Intervals: coverage (small version of benchmarks/scaling_coverage.py), profile, status."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from jstar.scaling import fit_law
from jstar.scaling.fit import fit_points
from jstar.scaling.intervals import bootstrap, webb
from jstar.scaling.laws import FitStatus
from jstar.scaling.profile import profile_interval
from jstar.scaling.simulate import TrueLaw, simulate_points


def holds(truth, studies, propagate=True):
    """Share of intervals that hold the truth, and the mean error of alpha in its own SD."""
    held, alphas = [], []
    for index in range(studies):
        points = simulate_points(truth, 11, index)
        points = points if propagate else replace(points, optimal_se=0.0)
        fit = fit_points(points, "corrected")
        low, high = bootstrap(points, fit, 300, index).interval(0.95)
        held.append(low <= truth.alpha <= high)
        alphas.append(fit.alpha)
    return np.mean(held), (np.mean(alphas) - truth.alpha) / np.std(alphas)


@pytest.mark.parametrize("runs", [4, 8])
def test_headline_interval_covers(runs):
    """95 % with a binomial standard error of 1.4 %: outside 90.5 ... 99 % is three of them."""
    share, bias = holds(TrueLaw(-0.1, 0.5, runs, run_noise=0.02), 240)
    assert 0.905 <= share <= 0.99
    assert abs(bias) < 0.3


def test_error_of_optimal_loss_must_be_in_the_interval():
    truth = TrueLaw(
        -0.1, 0.9, run_noise=0.005, point_noise=0.002, optimal_error=0.005, direct=False
    )
    assert 0.89 <= holds(truth, 150)[0] <= 0.99
    assert holds(truth, 150, propagate=False)[0] < 0.6


def test_webb_weights():
    v = webb(np.random.default_rng(0), 40_000, 3)
    assert len(np.unique(v)) == 6
    assert v.mean() == pytest.approx(0, abs=0.01)
    assert v.var() == pytest.approx(1, abs=0.01)


def test_profile_of_a_line_has_its_closed_form():
    points = simulate_points(TrueLaw(-0.1), 1)
    fit = fit_points(points, "corrected")
    low, high = profile_interval(points, fit, 0.95)
    n, x = len(points), points.x
    half = np.sqrt((fit.residual**2).sum() / (x**2).sum() * np.expm1(chi2.ppf(0.95, 1) / n))
    assert (low, high) == pytest.approx((fit.alpha - half, fit.alpha + half), rel=1e-3)


def test_profile_takes_the_error_of_optimal_loss_in():
    truth = TrueLaw(-0.1, 0.9, run_noise=0.0, point_noise=0.01, optimal_error=0.005, direct=False)
    points = simulate_points(truth, 1)
    fit = fit_points(points, "corrected")
    low, high = profile_interval(points, fit, 0.95)
    exact = profile_interval(replace(points, optimal_se=0.0), fit, 0.95)
    assert high - low > 2 * (exact[1] - exact[0])
    assert low < truth.alpha < high


@pytest.mark.parametrize(("law", "direct"), [("corrected", False), ("raw", True)])
def test_profile_holds_its_own_estimate(law, direct):
    """A J* two standard errors off bends ln(J - J*): it must move neither estimate nor profile."""
    truth = TrueLaw(-0.17, 0.9, run_noise=0.0, point_noise=0.001, optimal_error=0.01, direct=direct)
    for index in range(8):
        points = simulate_points(truth, 3, index)
        points = points if direct else points.with_optimal(0.9 - 2 * points.optimal_se)
        fit = fit_points(points, law)
        low, high = profile_interval(points, fit, 0.95)
        known = profile_interval(replace(points, optimal_se=0.0), fit, 0.95)
        assert low < known[0] < fit.alpha < known[1] < high


def test_free_law_says_not_identifiable():
    flops = np.geomspace(1e18, 1e21, 36)
    run = np.repeat(np.arange(6), 6)
    weak = []
    for index in range(30):
        rng = np.random.default_rng([4, index])
        noise = 0.001 * rng.standard_normal(36) + 0.001 * rng.standard_normal(6)[run]
        loss = (0.3675 * flops**-0.014 + 0.015) * np.exp(noise)
        weak.append(fit_law(flops, loss, law="free", run=run).status)
    assert weak.count(FitStatus.NOT_IDENTIFIABLE) >= 26
    strong = fit_law(flops, 0.3 + (flops / 1e18) ** -0.5 * np.exp(noise), law="free", run=run)
    assert strong.ok
    assert strong.alpha_low < -0.5 < strong.alpha_high
    assert strong.offset == pytest.approx(0.3, rel=0.05)


def test_gap_within_the_error_of_optimal_loss_is_not_resolved():
    truth = TrueLaw(-0.1, 0.9, optimal_error=0.2, direct=False)
    found = {fit_law_of(simulate_points(truth, 2, index)).status for index in range(8)}
    assert FitStatus.GAP_NOT_RESOLVED in found
    assert FitStatus.CONVERGED not in found


def fit_law_of(points):
    label = points.cluster
    return fit_law(points.flops, points.loss, optimal=points.optimal,
                   optimal_se=points.optimal_se, run=label)  # fmt: skip


def test_same_seed_same_draws():
    points = simulate_points(TrueLaw(-0.1), 1)
    fit = fit_points(points, "corrected")
    one, two = (bootstrap(points, fit, 200, 5).alpha for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, bootstrap(points, fit, 200, 6).alpha)
