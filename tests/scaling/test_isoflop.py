"""IsoFLOP minima by budget and along runs: known optima come back, and nothing fails silently."""

import numpy as np
import pytest
from known_laws import CHINCHILLA, REFINED, by_budget, ladder

from jstar.scaling.calibration import interval
from jstar.scaling.isoflop import draw_minima, iso_flop, optimal_exponent, slope
from jstar.scaling.simulate import TrueStudy, simulate_study

QUIET = TrueStudy(run_noise=0.0, snapshot_noise=0.0, sigmas=(1.0,))


def exponent_interval(iso, law, seed=0):
    drawn = draw_minima(iso, (np.nan, 0), -law["E"], 400, np.random.default_rng(seed))
    log_f = np.log(iso.minima["flops"].to_numpy())[iso.inside_C]
    return interval(slope(log_f, drawn.log_n_QC[:, iso.inside_C]), 0.95)


@pytest.mark.parametrize(
    ("noise", "jitter"), [(0.0, 0.0), (0.005, 0.0), (0.0, 0.05), (0.005, 0.05)]
)
def test_sizes_by_budget_give_chinchillas_exponent(noise, jitter):
    table = by_budget(CHINCHILLA, np.geomspace(6e18, 3e21, 9), 7, 1.2, noise, jitter)
    iso = iso_flop(table, "loss")
    assert (iso.by_budget, iso.status, len(iso.minima)) == (True, "converged", 9)
    assert iso.inside_C.all()
    assert optimal_exponent(iso.minima, "params") == pytest.approx(0.513, abs=0.01)
    assert optimal_exponent(iso.minima, "images") == pytest.approx(0.487, abs=0.01)
    # A known floor moves no minimum, and one value below it loses none.
    gap = iso_flop(table.assign(gap=table["loss"] - table["loss"].min() - 0.01), "gap")
    assert gap.minima["params"].to_numpy() == pytest.approx(iso.minima["params"].to_numpy())
    # The minimum is that of the law: alpha = -ab / (a + b) of J - E.
    fall = slope(np.log(iso.minima["flops"]), np.log(iso.minima["value"] - 1.82).to_numpy()[None])
    assert fall[0] == pytest.approx(-0.348 * 0.366 / 0.714, abs=0.002)


def test_intervals_of_budgets_cover():
    """RefinedWeb's 0.497 at a constant rate: twelve budgets of eight sizes, .3 % noise."""
    flops, estimates, ends = np.geomspace(1e16, 2e19, 12), [], []
    for seed in range(60):
        iso = iso_flop(by_budget(REFINED, flops, 8, 2.0, 0.003, 0.02, seed), "loss")
        estimates.append(optimal_exponent(iso.minima, "params"))
        ends.append(exponent_interval(iso, REFINED, seed))
    low, high = np.array(ends).T
    assert np.mean(estimates) == pytest.approx(0.497, abs=0.001)
    assert np.mean((low <= 0.497) & (high >= 0.497)) >= 0.9
    assert np.mean(high - low) < 6 * np.std(estimates)


def test_a_minimum_beyond_the_sizes_is_no_minimum():
    table = by_budget(CHINCHILLA, np.geomspace(6e18, 3e21, 5), 6, 1.2)
    smaller = table[table["run"].str.endswith(("-0", "-1", "-2"))]
    iso = iso_flop(smaller, "loss")
    assert (iso.by_budget, iso.status) == (True, "no minimum inside")
    assert set(iso.minima["status"]) == {"at the edge"}
    largest = smaller.groupby(smaller["flops"].round(-15))["params"].max()
    assert iso.minima["params"].to_numpy() == pytest.approx(largest.to_numpy())
    assert np.isnan(optimal_exponent(iso.minima, "params"))


def test_two_minima_are_no_exponent_and_two_sizes_no_parabola():
    table = by_budget(CHINCHILLA, [1e19, 1e20], 5, 1.2)
    iso = iso_flop(table, "loss")
    assert (iso.status, iso.inside_C.sum()) == ("too few minima inside", 2)
    pairs = table[table["run"].str.endswith(("-0", "-4"))]
    assert iso_flop(pairs, "loss").status == "no compute that three sizes share"
    one = table.assign(params=table["params"].iloc[0])
    assert iso_flop(one, "loss").status == "too few sizes"


@pytest.mark.parametrize("snapshots", [1, 2, 6])
def test_compute_that_no_two_sizes_share_is_said(snapshots):
    """Four sizes at 1-2e16, 1-2e17, 1-2e18, 1-2e19 FLOPs: an argmin of nothing, once."""
    table = ladder(
        np.geomspace(1e5, 1e8, 4),
        lambda n: 1e16 * (n / 1e5) * np.linspace(1, 2, snapshots),
    )
    iso = iso_flop(table, "loss")
    assert iso.status == "no compute that three sizes share"
    assert iso.minima.empty or set(iso.minima["status"]) == {"too few sizes"}
    assert draw_minima(iso, (0.01, 5), 0.0, 100, np.random.default_rng(0)) is None


def test_ranges_with_gaps_between_them():
    """Two pairs of sizes overlap, far apart: levels between them have no size at all."""
    start = {1e6: 1e16, 2e6: 1e16, 1e8: 1e19, 2e8: 1e19}
    iso = iso_flop(ladder(start, lambda n: start[n] * np.linspace(1, 3, 6)), "loss")
    assert iso.status == "no compute that three sizes share"
    assert 0 < len(iso.minima) < 9


def test_equal_images_have_no_minimum_inside():
    """Ladder on the side of the optimum where smaller is better until its images run out."""
    images = np.geomspace(1e4, 2e5, 20)
    iso = iso_flop(ladder(np.geomspace(1e7, 4e8, 6), lambda n: 6 * n * images), "loss")
    assert (iso.by_budget, iso.status) == (False, "no minimum inside")
    assert set(iso.minima["status"]) <= {"at the edge", "too few sizes"}
    assert len(iso.minima) == 9


def test_along_runs_the_optimum_of_the_law_comes_back():
    rows = simulate_study(QUIET, 0)[0]
    iso = iso_flop(rows, "gap")
    assert (iso.by_budget, iso.status) == (False, "converged")
    inside = iso.minima[iso.inside_C]
    # N_opt ~ F^{b/(a+b)}, D_opt ~ F^{a/(a+b)} of the law that made the data.
    expected = QUIET.b / (QUIET.a + QUIET.b)
    assert optimal_exponent(iso.minima, "params") == pytest.approx(expected, abs=0.05)
    assert optimal_exponent(iso.minima, "images") == pytest.approx(1 - expected, abs=0.05)
    product = inside["params"] * inside["images"] * 6 / inside["flops"]
    assert product.to_numpy() == pytest.approx(np.ones(len(inside)), rel=1e-6)
    assert len(iso.curves) > len(iso.minima)
    low, high = np.quantile(
        slope(np.log(inside["flops"].to_numpy()), draw_minima(
            iso, (0.01, 4), 0.0, 400, np.random.default_rng(0)).log_n_QC[:, iso.inside_C]),
        [0.025, 0.975],
    )  # fmt: skip
    assert low < expected < high
