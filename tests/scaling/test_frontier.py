"""Frontier, residual tests, sensitivity."""

import numpy as np
import pandas as pd
import pytest

from jstar.errors import JstarError
from jstar.scaling import frontier
from jstar.scaling.fit import fit_points
from jstar.scaling.frontier import FrontierStatus
from jstar.scaling.residuals import examine
from jstar.scaling.sensitivity import huber
from jstar.scaling.simulate import TrueLaw, TrueStudy, simulate_points, simulate_study

QUIET = TrueStudy(run_noise=0.0, snapshot_noise=0.0, sigmas=(1.0,))


@pytest.fixture
def rows():
    return simulate_study(QUIET, 0)[0]


def test_frontier_is_the_envelope(rows):
    found = frontier(rows, value="gap", tolerance=0.0)
    assert found.status is FrontierStatus.FOUND
    # Cut to where sizes compete: from the first crossing to the last, sizes rise one by one.
    every = np.unique(rows["params"])
    assert [b for _, b in found.exchanged[:-1]] == [a for a, _ in found.exchanged[1:]]
    assert found.sizes == tuple(b for _, b in found.exchanged[:-1])
    assert set(found.sizes) < set(every)
    # No row reaches a lower gap with less compute than a frontier point.
    for _, point in found.points.iterrows():
        cheaper = rows[rows["flops"] <= point["flops"]]
        assert cheaper["gap"].min() == pytest.approx(point["gap"])
    fit = np.polyfit(np.log(found.points["flops"]), np.log(found.points["gap"]), 1)
    assert fit[0] == pytest.approx(QUIET.alpha, abs=0.002)


def test_frontier_averages_seeds():
    rows = simulate_study(TrueStudy(seeds=2, run_noise=0.2, sigmas=(1.0,)), 0)[0]
    points = frontier(rows, value="gap").points
    # Both seeds of a chosen snapshot are on it, the unlucky one too.
    assert (points.groupby(["params", "flops"])["run"].nunique() == 2).all()


def test_one_size_is_best_everywhere():
    flops = np.geomspace(1, 100, 10)
    rows = pd.concat([
        pd.DataFrame({"run": name, "params": p, "flops": flops, "loss": level / flops})
        for name, p, level in (("a", 1, 1.0), ("b", 2, 3.0))
    ])  # fmt: skip
    found = frontier(rows)
    assert found.status is FrontierStatus.NO_CROSSING
    assert found.sizes == (1.0,)
    with pytest.raises(JstarError, match="column 'loss' is missing"):
        frontier(rows.drop(columns="loss"))


def test_crossings_with_no_snapshot_between_them_bound_nothing():
    curves = {"a": [10, 9.0, 8.9], "b": [10, 9.1, 3.0], "c": [10, 9.6, 1.0]}
    rows = pd.concat([
        pd.DataFrame({"run": run, "params": params, "flops": [1.0, 10, 100], "loss": loss})
        for params, (run, loss) in enumerate(curves.items(), 1)
    ])  # fmt: skip
    found = frontier(rows)
    assert len(found.crossings) == 2
    assert found.status is FrontierStatus.NO_CROSSING
    assert len(found.points) > 0


def test_residual_tests_see_curvature_and_only_it():
    points = simulate_points(TrueLaw(-0.15, 0.6, 8, run_noise=0.002, point_noise=0.002), 3)
    good = examine(points, fit_points(points, "corrected"))
    bad = examine(points, fit_points(points, "raw"))
    assert good.curvature_p > 0.01
    assert bad.curvature_p < 0.01
    assert bad.curvature > 0
    assert bad.runs_p < 0.01
    assert bad.broken_p < 0.01 < good.broken_p
    # A flattening law: the second slope is less steep.
    assert bad.alpha_before < bad.alpha_after < 0


def test_durbin_watson_of_unrelated_residuals_is_two():
    points = simulate_points(TrueLaw(-0.15, runs=8, points=40, run_noise=0.0, point_noise=0.01), 3)
    tests = examine(points, fit_points(points, "corrected"))
    assert tests.durbin_watson == pytest.approx(2, abs=0.25)
    assert tests.runs_p > 0.01


def test_huber_forgives_an_outlier():
    x = np.linspace(-1, 1, 30)
    y = 1 - 0.1 * x + 1e-3 * np.random.default_rng(0).standard_normal(30)
    y[-1] += 1.0
    assert huber(x, y) == pytest.approx(-0.1, abs=2e-3)
    assert abs(np.polyfit(x, y, 1)[0] + 0.1) > 0.02
