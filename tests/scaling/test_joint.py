"""The joint law: exact where the data are, the same as lmfit, and its errors as they were made."""

import lmfit
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from jstar.scaling import fast_solve, joint_solve
from jstar.scaling.design import SIGMA, JointTruth, StudyDesign, simulate_design
from jstar.scaling.joint import exponents, fit_joint, joint_points
from jstar.scaling.joint_many import (
    HIGHEST,
    LOWEST,
    RATIO_L,
    Components,
    JointDesign,
    Luck,
    Whitening,
    components,
    draw_errors,
    error_weights,
    snapshot_correlation,
)

SIZES = np.geomspace(1e5, 1e7, 6)
EQUAL = StudyDesign.even(SIZES, [2e6] * 6, 13, 1 / 14)  # every size sees the same images
QUIET = JointTruth(a=0.4, b=0.3, run_noise=0.0, snapshot_noise=0.0)
CHINCHILLA = {"E": 1.82, "A": 482.0, "a": 0.348, "B": 2085.0, "b": 0.366}  # Besiroglu et al. 2024


def points_of(losses, optimal=1.0, cluster="size", column="loss"):
    found = joint_points(losses, column, (optimal, 0.0), cluster)
    assert not isinstance(found, str), found
    return found


@pytest.mark.parametrize("floor", [0.0, 1.0, 1.5])
def test_an_exact_law_comes_back(floor):
    truth = JointTruth(a=0.4, b=0.3, floor=floor, run_noise=0.0, snapshot_noise=0.0)
    points, fits, _ = fit_joint(points_of(simulate_design(EQUAL, truth, 0)[0]))
    theta = fits.theta["free"]
    assert theta[0, 4] * points.unit == pytest.approx(floor, abs=2e-3)
    assert theta[0, [1, 3]] == pytest.approx([0.4, 0.3], rel=5e-3)
    alpha, size = exponents(theta)
    assert (alpha[0], size[0]) == pytest.approx((truth.alpha, 0.3 / 0.7), rel=5e-3)
    right = {0.0: "zero", 1.0: "optimal", 1.5: "free"}[floor]
    wrong = [f for f in ("zero", "optimal") if f != right]
    assert all(fits.rss[f][0] > 1e3 * fits.rss[right][0] for f in wrong)


@pytest.fixture(params=["compiled", "NumPy"])
def solver(request, monkeypatch):
    """`solve` of one study from one start, theta [5] and rss, in both of its ways."""
    if request.param == "NumPy":
        monkeypatch.setattr(joint_solve, "kernel", lambda: None)
    elif fast_solve.kernel() is None:
        pytest.skip("no compiler here")

    def run(design, loss_P, start, white, **how):
        theta, rss = joint_solve.solve(design, loss_P[None], start[None, None], white, **how)
        return theta[0, 0], rss[0, 0]

    return run


def test_the_solver_agrees_with_lmfit(solver):
    rng = np.random.default_rng(1)
    losses, _ = simulate_design(EQUAL, JointTruth(run_noise=0.02, snapshot_noise=0.01), 1)
    points = points_of(losses)
    design, loss = points.design, points.loss_P
    weight = rng.uniform(0.5, 2.0, len(design))
    white = Whitening.of(design, weight[None], np.zeros(1), np.zeros(1))
    start = np.array([-1.0, 0.3, -1.0, 0.3, 0.4])
    theta, rss = solver(design, loss, start, white, free=True, tolerance=1e-14)
    params = lmfit.Parameters()
    for name, value in zip(("lnA", "a", "lnB", "b", "E"), theta * 1.05, strict=True):
        params.add(name, value=value)

    def residual(p):
        by_size = np.exp(p["lnA"] - p["a"] * design.ln_n_P)
        by_data = np.exp(p["lnB"] - p["b"] * design.ln_d_P)
        return (loss - p["E"] - by_size - by_data) * weight

    other = lmfit.minimize(residual, params, ftol=1e-14, xtol=1e-14)
    assert rss == pytest.approx((other.residual**2).sum(), rel=1e-8)
    assert theta == pytest.approx(list(other.params.valuesdict().values()), rel=1e-5)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("law", [{}, {"a": 0.023, "b": 0.298, "part": 0.943, "optimal": 0.9}])
def test_the_solver_ends_where_the_sum_of_squares_is_least(law, free, solver):
    """Also in the valley where a small exponent imitates a floor; correlated errors, far starts."""
    truth = JointTruth(run_noise=0.003, snapshot_noise=0.005, correlation=0.9, **law)
    points = points_of(simulate_design(EQUAL, truth, 2)[0])
    design, loss = points.design, points.loss_P
    weight, along, ratio = 1 / design.gap(np.array([[-0.7, 0.3, -0.7, 0.3, 0.0]])), 0.8, 2.0
    white = Whitening.of(design, weight, np.array([along]), np.array([ratio]))
    lag_PP = np.abs(np.cumsum(design.lag_P)[:, None] - np.cumsum(design.lag_P))
    series = np.cumsum(design.first_P)
    errors = np.where(series[:, None] == series, along**lag_PP, 0)
    errors = errors + ratio**2 * (design.cluster_P[:, None] == design.cluster_P)
    spread = np.linalg.inv(np.linalg.cholesky(errors / weight[0][:, None] / weight[0]))
    bounds = (LOWEST, HIGHEST) if free else (LOWEST[:4], HIGHEST[:4])

    def residual(p):
        theta = np.r_[p, [] if free else [1.0 / points.unit]][None]
        return spread @ (loss - theta[0, 4] - design.gap(theta)[0])

    rng = np.random.default_rng(0)
    starts = [rng.uniform([-3, 0.05, -3, 0.05, -1], [2, 1, 2, 1, 1]) for _ in range(12)]
    best = min(
        least_squares(residual, s[: len(bounds[0])], bounds=bounds, x_scale="jac", max_nfev=3000,
                      ftol=1e-12, xtol=1e-12, gtol=1e-12).cost * 2 for s in starts
    )  # fmt: skip
    for start in (np.array([-0.7, 0.3, -0.7, 0.3, 0.5]), np.array([1.0, 0.05, -1.0, 0.1, -1.0])):
        start[4] = start[4] if free else 1.0 / points.unit
        _, rss = solver(design, loss, start, white, free=free)
        assert rss <= best * (1 + 1e-4)


@pytest.mark.skipif(fast_solve.kernel() is None, reason="no compiler here")
@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("cluster", ["size", "run", "point"])
def test_compiled_and_not_the_solver_goes_the_same_way(cluster, free, monkeypatch):
    """Three starts of 60 studies; some laws end at a bound, and errors are of every kind."""
    rng, truth = np.random.default_rng(3), JointTruth(run_noise=0.03, snapshot_noise=0.01)
    points = points_of(simulate_design(EQUAL, truth, 3)[0], cluster=cluster.replace("point", "run"))
    design = points.design
    if cluster == "point":
        every = np.arange(len(design))
        design = JointDesign.of(np.exp(design.ln_n_P), np.exp(design.ln_d_P), every, every)
    law_QK = rng.uniform([-3, 0.02, -3, 0.02, -1], [1, 1.5, 1, 1.5, 1], (60, 5))
    gap_QP = design.gap(law_QK)
    noise_QP = rng.standard_normal(gap_QP.shape) * rng.choice([0.003, 0.3], (60, 1))
    loss_QP = law_QK[:, 4:5] + gap_QP * (1 + noise_QP)
    along_Q, ratio_Q = rng.choice([0.0, 0.9], 60), rng.choice([0.0, 0.5, 20.0], 60)
    white = Whitening.of(design, 1 / gap_QP, along_Q, ratio_Q)
    start_IQK = np.stack([law_QK, law_QK + 0.1, rng.permutation(law_QK)])
    theta, rss = joint_solve.solve(design, loss_QP, start_IQK, white, free=free)
    monkeypatch.setattr(joint_solve, "kernel", lambda: None)
    theta_np, rss_np = joint_solve.solve(design, loss_QP, start_IQK, white, free=free)
    np.testing.assert_allclose(rss, rss_np, rtol=1e-6)
    ends = np.sort(np.abs(theta - theta_np).max(axis=2).ravel())
    assert ends[-9] < 1e-3  # of 180; in a valley without an end, rounding decides where to stop
    bound = (theta[..., [1, 3]] == LOWEST[[1, 3]]) | (theta[..., [1, 3]] == HIGHEST[[1, 3]])
    low = theta[..., [0, 2]] <= LOWEST[[0, 2]] + 1e-9
    assert bound.any(axis=2).sum() > 5
    assert low.any()


def test_components_of_the_errors_are_recovered():
    """tau = .05, s = .01, correlation .6: forty clusters of forty snapshots."""
    rng = np.random.default_rng(2)
    size, steps = 40, 40
    n, d = np.repeat(np.geomspace(1e5, 1e8, size), steps), np.tile(np.geomspace(1, 50, steps), size)
    code = np.repeat(np.arange(size), steps)
    design = JointDesign.of(n, d, code, code)
    theta = np.array([[-0.7, 0.3, -0.7, 0.3, 0.0]])
    error = rng.standard_normal((size, steps))
    for k in range(1, steps):
        error[:, k] = 0.6 * error[:, k - 1] + 0.8 * error[:, k]
    relative = 0.05 * rng.standard_normal(size)[code] + 0.01 * error.ravel()
    gap = design.gap(theta)[0]
    loss = (gap * (1 + relative))[None]
    weight = 1 / gap[None]
    assert snapshot_correlation(design, loss, theta, weight)[0] == pytest.approx(0.6, abs=0.07)
    white = Whitening.of(design, weight, np.array([0.6]), np.zeros(1))
    found, _ = components(design, loss, theta, white, 4)
    at = int(found.posterior_QL[0].argmax())
    assert np.sqrt(found.variance_QL[0, at]) == pytest.approx(0.01, rel=0.05)
    assert found.ratio_Q(design.ratios)[0] * 0.01 == pytest.approx(0.05, rel=0.3)


def chinchilla(outliers: int) -> pd.DataFrame:
    """240 runs of one point each: sizes and tokens of the published range, .3 % errors."""
    rng = np.random.default_rng(5)
    n, d = np.exp(rng.uniform(np.log(5e7), np.log(1.6e10), 240)), np.empty(240)
    d = np.exp(rng.uniform(np.log(5e9), np.log(5e11), 240))
    law = CHINCHILLA["E"] + CHINCHILLA["A"] * n ** -CHINCHILLA["a"]
    law = law + CHINCHILLA["B"] * d ** -CHINCHILLA["b"]
    loss = law * np.exp(0.003 * rng.standard_normal(240))
    loss[:outliers] *= 1.15
    table = {"run": [f"r{k}" for k in range(240)], "params": n, "images": d, "flops": 6 * n * d}
    return pd.DataFrame({**table, "loss": loss})


@pytest.mark.parametrize("outliers", [0, 5])
def test_a_public_law_comes_back_with_outliers_in(outliers):
    points, fits, _ = fit_joint(points_of(chinchilla(outliers), float("nan")))
    theta = fits.theta["free"]
    size = exponents(theta)[1][0]
    assert size == pytest.approx(0.513, abs=0.03)
    assert theta[0, 4] * points.unit == pytest.approx(1.82, abs=0.05)
    assert theta[0, [1, 3]] == pytest.approx([0.348, 0.366], abs=0.03)
    assert (points.outlying_P > 3).sum() == outliers


def test_seeds_are_averaged_and_runs_are_not():
    design = StudyDesign(EQUAL.params, EQUAL.images, (2,) * 6)
    losses, _ = simulate_design(design, QUIET, 0)
    assert len(points_of(losses).loss_P) == 6 * 13
    assert len(points_of(losses, cluster="run").loss_P) == 12 * 13


def test_without_images_compute_over_size_stands_for_them():
    losses, _ = simulate_design(EQUAL, QUIET, 0)
    one, two = (fit_joint(points_of(t))[1] for t in (losses, losses.drop(columns="images")))
    assert two.theta["free"] == pytest.approx(one.theta["free"], rel=1e-6)


def test_what_no_joint_law_can_be_fitted_to_is_said():
    losses, _ = simulate_design(EQUAL, QUIET, 0)
    assert "2 sizes" in joint_points(losses[losses["params"] < 3e5], "loss", (1.0, 0.0), "size")
    last = losses[losses["images"] == losses["images"].max()]
    assert "b is not identified" in joint_points(last, "loss", (1.0, 0.0), "size")
    few = losses[losses["snapshot"].isin([0, 6, 12])].head(7)
    assert "7 points" in joint_points(few, "loss", (1.0, 0.0), "size")


def test_units_change_no_exponent():
    losses, _ = simulate_design(EQUAL, JointTruth(), 3)
    scaled = losses.assign(
        loss=losses["loss"] * 1e-9, params=losses["params"] * 1e-3, images=losses["images"] * 1e6
    )
    one, two = fit_joint(points_of(losses))[1], fit_joint(points_of(scaled, 1e-9))[1]
    for floor in one.theta:
        assert two.theta[floor] == pytest.approx(one.theta[floor], rel=1e-6)


def test_a_design_is_read_from_its_table():
    losses, curve = simulate_design(EQUAL, QUIET, 0)
    again = StudyDesign.of_table(losses)
    assert again.params == pytest.approx(EQUAL.params)
    assert np.array(again.images) == pytest.approx(np.array(EQUAL.images))
    assert again.cost == pytest.approx(EQUAL.cost)
    assert list(curve["sigma"]) == [SIGMA]


def test_drawn_errors_have_the_components_that_are_known():
    """s = 0.5 with correlation .8, tau = 0.33; the second size's points are half as certain."""
    code, known = np.repeat([0, 1], 4), np.arange(len(RATIO_L)) == 6
    design = JointDesign.of(1e5 * 10.0**code, np.tile([1e4, 2e4, 4e4, 8e4], 2), code, code)
    white = Whitening.of(design, np.ones((1, 8)), np.array([0.8]), RATIO_L[known])
    parts = Components(known[None].astype(float), np.full((1, len(RATIO_L)), 0.25))
    weight, luck = np.where(code, 0.5, 1.0), Luck(np.random.default_rng(0))
    drawn = draw_errors(design, white, parts, 10**6, weight, 40_000, luck)  # freedom: s is known
    lag = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    shared = (0.5 * RATIO_L[6]) ** 2
    expected = np.where(np.equal.outer(code, code), shared + 0.25 * 0.8**lag, 0.0)
    assert weight * np.cov(drawn.T) * weight[:, None] == pytest.approx(expected, abs=0.012)


def test_a_size_with_more_seeds_is_known_better():
    """Seeds share half of their size's variance: the mean of two has sqrt(3/4) of one's error."""
    uneven = StudyDesign(EQUAL.params, EQUAL.images, (2, 1, 4, 1, 1, 1))
    points = points_of(simulate_design(uneven, QUIET, 3)[0])
    design, theta = points.design, np.array([[-0.7, 0.3, -0.7, 0.3, 0.0]])
    assert [int(design.seeds_P[at]) for at in design.start_R] == [2, 1, 4, 1, 1, 1]
    one = JointDesign(**{**vars(design), "seeds_P": np.ones(len(design))})
    ratio = error_weights(one, theta, 1.0) / error_weights(design, theta, 1.0)
    expected = np.sqrt([0.75, 1, 0.625, 1, 1, 1])
    assert ratio[0, design.start_R] == pytest.approx(expected)
    white = Whitening.of(design, error_weights(design, theta, 1.0), np.zeros(1), np.full(1, 3.0))
    known = Components(np.eye(len(RATIO_L))[12:13], np.full((1, len(RATIO_L)), 1e-4))
    drawn = draw_errors(
        design, white, known, 10**9, white.weight_QP[0], 4000, Luck(np.random.default_rng(1))
    )
    spread = (drawn / design.gap(theta)).std(axis=0)[design.start_R]
    assert spread / spread[1] == pytest.approx(expected, rel=0.05)
