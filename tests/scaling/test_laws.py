"""One law at a time: exact recovery, certified numbers, units, weights, statuses."""

import numpy as np
import pytest

from jstar.errors import JstarError
from jstar.scaling import compare_laws, fit_law
from jstar.scaling.laws import FitStatus

FLOPS = np.geomspace(1e12, 1e16, 24)
RUN = np.repeat(np.arange(6), 4)


@pytest.mark.parametrize("alpha", [-0.02, -0.1, -0.4])
def test_exact_law_is_recovered(alpha):
    gap = 3.0 * FLOPS**alpha
    fit = fit_law(FLOPS, 0.3 + gap, optimal=0.3, gap=gap, run=RUN)
    assert fit.ok
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert fit.beta == pytest.approx(3.0, rel=1e-8)
    assert fit.loss(FLOPS) == pytest.approx(0.3 + gap, rel=1e-10)
    raw = fit_law(FLOPS, gap, law="raw", run=RUN)
    assert raw.alpha == pytest.approx(alpha, rel=1e-9)


def test_free_offset_is_recovered_where_it_can_be():
    loss = 0.3 + 3e3 * FLOPS**-0.3
    fit = fit_law(FLOPS, loss, law="free", run=RUN)
    assert fit.ok
    assert fit.offset == pytest.approx(0.3, rel=1e-6)
    assert fit.alpha == pytest.approx(-0.3, rel=1e-5)


def test_certified_line_to_eight_digits():
    """ln J = 2 - 0.1 ln F with known residuals; slope and errors by exact rational arithmetic."""
    from fractions import Fraction

    x = [Fraction(k) for k in range(8)]
    y = [Fraction(2) - Fraction(k, 10) + Fraction(e, 1000) for k, e in
         zip(range(8), (3, -1, 4, -1, 5, -9, 2, -6), strict=True)]  # fmt: skip
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    sxx = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sxx
    rss = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    se = float(rss / (n - 2) / sxx) ** 0.5
    total = sum((b - mean_y) ** 2 for b in y)
    fit = fit_law(np.exp([float(a) for a in x]), np.exp([float(b) for b in y]), law="raw")
    assert fit.alpha == pytest.approx(float(slope), rel=1e-8)
    assert fit.alpha_se == pytest.approx(se, rel=1e-8)
    assert fit.r2 == pytest.approx(float(1 - rss / total), rel=1e-8)
    assert np.log(fit.beta) == pytest.approx(float(mean_y - slope * mean_x), rel=1e-8)


@pytest.mark.parametrize("law", ["raw", "corrected"])
def test_units_change_nothing(law):
    rng = np.random.default_rng(3)
    gap = 3.0 * FLOPS**-0.2 * np.exp(0.01 * rng.standard_normal(24))
    one = fit_law(FLOPS, 0.01 + gap, law=law, optimal=0.01, se=0.01 * gap, run=RUN)
    for unit_f, unit_j in ((1e15, 1.0), (1.0, 1e15), (1e-15, 1e-15)):
        two = fit_law(FLOPS * unit_f, (0.01 + gap) * unit_j, law=law, optimal=0.01 * unit_j,
                      se=0.01 * gap * unit_j, run=RUN)  # fmt: skip
        assert two.alpha == pytest.approx(one.alpha, rel=1e-9)
        assert two.r2 == pytest.approx(one.r2, rel=1e-9)
        assert (two.alpha_low, two.alpha_high) == pytest.approx(
            (one.alpha_low, one.alpha_high), rel=1e-8
        )


def test_weights_point_the_right_way():
    """A point with a huge error must not bend the fit; inverted weights would follow it."""
    gap = 3.0 * FLOPS**-0.2
    bent, se = gap.copy(), 1e-3 * gap
    bent[-1] *= 2
    se[-1] = 10 * gap[-1]
    fit = fit_law(FLOPS, bent, law="raw", se=se, run=RUN)
    assert fit.alpha == pytest.approx(-0.2, rel=1e-4)
    trusted = fit_law(FLOPS, bent, law="raw", se=1e-3 * bent, run=RUN)
    assert abs(trusted.alpha + 0.2) > 1e-3


def test_statuses_say_why():
    gap = 3.0 * FLOPS**-0.2
    assert fit_law(FLOPS[:3], gap[:3], law="raw").status is FitStatus.TOO_FEW_POINTS
    two = np.repeat([0, 1], 12)
    assert fit_law(FLOPS, gap, law="raw", run=two).status is FitStatus.TOO_FEW_CLUSTERS
    assert fit_law(FLOPS, gap).status is FitStatus.NO_OPTIMAL
    assert fit_law(FLOPS, gap, optimal=1.1 * float(gap[0])).status is FitStatus.GAP_NOT_RESOLVED
    with pytest.raises(JstarError, match="law 'power' is unknown, allowed are raw"):
        fit_law(FLOPS, gap, law="power")
    with pytest.raises(JstarError, match="loss: point 2 is nan"):
        fit_law(FLOPS, np.where(np.arange(24) == 2, np.nan, gap))
    with pytest.raises(JstarError, match="run: 3 labels for 24 points"):
        fit_law(FLOPS, gap, run=[1, 2, 3])


def test_gaps_below_zero_are_fitted_in_the_loss():
    """Noise of 6 % of the largest gap: left out, the points below J* would flatten the law."""
    alphas, held = [], []
    for index in range(60):
        rng = np.random.default_rng([6, index])
        loss = 0.9 + 0.1 * (FLOPS / FLOPS[0]) ** -0.35 + 0.006 * rng.standard_normal(24)
        if (loss > 0.9).all():
            continue
        fit = fit_law(FLOPS, loss, optimal=0.9, run=RUN, draws=200)
        assert (fit.status, fit.r2_response) == (FitStatus.CONVERGED, "J - J*")
        assert fit.solver_difference < 1e-6
        assert fit.profile[0] < fit.alpha < fit.profile[1]
        alphas.append(fit.alpha)
        held.append(fit.alpha_low < -0.35 < fit.alpha_high)
    assert len(alphas) > 30
    assert np.mean(alphas) == pytest.approx(-0.35, abs=3 * np.std(alphas) / len(alphas) ** 0.5)
    assert np.mean(held) > 0.85
    positive = loss > 0.9
    cut = fit_law(FLOPS[positive], loss[positive], optimal=0.9)
    assert cut.alpha > np.mean(alphas) + 3 * np.std(alphas) / len(alphas) ** 0.5


def test_error_of_optimal_loss_widens_the_interval():
    rng = np.random.default_rng(0)
    loss = 0.9 + 0.1 * (FLOPS / FLOPS[0]) ** -0.1 * np.exp(0.003 * rng.standard_normal(24))
    exact = fit_law(FLOPS, loss, optimal=0.9, run=RUN)
    unsure = fit_law(FLOPS, loss, optimal=0.9, optimal_se=0.009, run=RUN)
    assert unsure.alpha == exact.alpha
    wide = unsure.alpha_high - unsure.alpha_low
    assert wide > 5 * (exact.alpha_high - exact.alpha_low)


def noisy(law_loss, rng, noise):
    return law_loss * np.exp(noise * rng.standard_normal(6)[RUN] + noise * rng.standard_normal(24))


def test_verdicts():
    rng = np.random.default_rng(5)
    x = FLOPS / FLOPS[0]
    gap = noisy(0.1 * x**-0.2, rng, 0.01)
    assert compare_laws(FLOPS, 0.5 + gap, optimal=0.5, gap=gap, run=RUN).verdict == "corrected"
    raw = noisy(1.0 * x**-0.1, rng, 0.003)
    assert compare_laws(FLOPS, raw, optimal=0.2, run=RUN).verdict == "raw"
    # The published total-loss law over three decades (METHOD section 4).
    flops = np.geomspace(1e18, 1e21, 24)
    total = noisy(0.3675 * flops**-0.014 + 0.015, rng, 0.002)
    assert compare_laws(flops, total, optimal=0.015, run=RUN).verdict == "undecided"
