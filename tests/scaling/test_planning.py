"""A design judged before it is paid for: its crossings, what makes them, its verdicts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jstar.errors import JstarError
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.expected import DRAWS, Share, expect, without_floor
from jstar.scaling.frontier import FrontierStatus, frontier
from jstar.scaling.isoflop import iso_flop
from jstar.scaling.joint import exponents, fit_joint, joint_points
from jstar.scaling.planning import (
    MEASURED,
    QUIET,
    competition,
    crossing_design,
    pilot_truth,
    stated_truth,
    takeovers,
)
from jstar.scaling.verdict import CORRECTED, RAW, UNDECIDED, judge

SIZES = (10_932.0, 34_780.0, 80_100.0, 153_804.0, 262_804.0, 414_012.0)  # of the digits study
COST = tuple(66.3 * n for n in SIZES)
EQUAL = replace(StudyDesign.even(SIZES, [220_032] * 6, 13, 1 / 14), flops_per_image=COST)
QUIETER = JointTruth(run_noise=0.01, snapshot_noise=0.003)


def loss_of(design, truth, params, images):
    """E + gap of the law, with its own arithmetic."""
    (n0, d0), (by_size, by_data) = design.middle, truth.terms()
    gap = by_size * (params / n0) ** -truth.a + by_data * (images / d0) ** -truth.b
    return truth.floor * truth.optimal + gap


def test_a_stated_law_has_its_optimum_and_its_floor():
    truth = stated_truth(EQUAL, replace(QUIETER, a=0.5, b=0.3), 9.0, 0.7)
    middle = EQUAL.middle[0]
    flops = 66.3 * middle * 9 * middle
    near = middle * np.array([0.97, 1.0, 1.03])
    loss = loss_of(EQUAL, truth, near, flops / (66.3 * near))
    assert loss[1] < min(loss[0], loss[2])
    losses, curve = simulate_design(EQUAL, replace(truth, **QUIET), 0)
    assert curve["loss"].iloc[0] / losses["loss"].min() == pytest.approx(0.7)
    bare = simulate_design(EQUAL, replace(without_floor(EQUAL, truth), **QUIET), 0)
    assert bare[1]["loss"].iloc[0] / bare[0]["loss"].min() == pytest.approx(0.7)


def test_a_size_takes_over_where_both_losses_are_equal():
    truth = stated_truth(EQUAL, replace(QUIETER, a=0.5, b=0.3), None, 0.7)
    flops, size, cost = takeovers(EQUAL, truth), np.array(SIZES), np.array(COST)
    small = loss_of(EQUAL, truth, size[:-1], flops / cost[:-1])
    large = loss_of(EQUAL, truth, size[1:], flops / cost[1:])
    assert small == pytest.approx(large, rel=1e-12)


def test_equal_images_are_called_what_they_are():
    found = competition(EQUAL, stated_truth(EQUAL, QUIETER, None, 0.9))
    assert (found.crossings, found.unfinished, found.late) == ((), 5, 0)
    many = StudyDesign.even(SIZES, [1e9] * 6, 13, 0.2)
    assert competition(many, stated_truth(many, QUIETER, 9.0, 0.9)).late == 5


@pytest.mark.parametrize("exponents_ab", [(0.35, 0.35), (0.16, 0.42), (0.6, 0.3)])
@pytest.mark.parametrize("images", [2e4, 220_032, 5e7])
def test_the_proposal_really_crosses(exponents_ab, images):
    design = replace(StudyDesign.even(SIZES, [images] * 6, 13, 1 / 14), flops_per_image=COST)
    a, b = exponents_ab
    truth = stated_truth(design, replace(QUIETER, a=a, b=b), 9.0, 0.9)
    better, there = crossing_design(design, truth)
    assert loss_of(better, there, 5e4, 3e5) / loss_of(better, there, 2e5, 1e6) == pytest.approx(
        loss_of(design, truth, 5e4, 3e5) / loss_of(design, truth, 2e5, 1e6)
    )
    assert competition(better, there).complete
    takeover = takeovers(design, truth)
    losses, _ = simulate_design(better, replace(there, run_noise=0.002, snapshot_noise=0.001), 3)
    edge = frontier(losses)
    assert edge.status is FrontierStatus.FOUND
    assert len(edge.crossings) == 5
    assert np.exp(edge.crossings) == pytest.approx(takeover, rel=0.25)
    minima = iso_flop(losses, "loss").minima
    between = minima[(minima["flops"] > takeover[0]) & (minima["flops"] < takeover[-1])]
    assert len(between) >= 3
    assert (between["status"] == "inside").mean() >= 0.8


@pytest.fixture
def pilot(tmp_path):
    """parametric.csv of a fit whose law is known."""
    path = tmp_path / "parametric.csv"
    law = {"E": 0.15, "A": 0.18, "a": 0.16, "B": 0.2, "b": 0.42, "N0": 9e4, "D0": 6e4}
    found = {"0.69": "at bound", "1.454219": "converged", "total": "converged"}
    rows = [{"sigma": s, "of": "fitted", "floor": f, **law, "status": status}
            for s, status in found.items() for f in ("zero", "optimal", "free")]  # fmt: skip
    rows.append({**rows[-1], "of": "measured", "E": 9.0})
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("sigma", [None, "total", "1.45"])
def test_a_pilots_law_is_the_same_law(pilot, sigma):
    truth = pilot_truth(pilot, sigma, EQUAL, QUIETER)
    (n0, d0) = EQUAL.middle
    unit = 0.18 * (n0 / 9e4) ** -0.16 + 0.2 * (d0 / 6e4) ** -0.42
    for n, d in ((1e4, 1e6), (5e5, 2e4)):
        law = 0.15 + 0.18 * (n / 9e4) ** -0.16 + 0.2 * (d / 6e4) ** -0.42
        assert unit * loss_of(EQUAL, truth, n, d) == pytest.approx(law, rel=1e-12)
    assert (truth.run_noise, truth.floor) == (0.01, 1.0)


def test_wrong_pilots_are_one_sentence(pilot, tmp_path):
    for sigma, words in (("3", "allowed is one of 0.69, 1.454219, total"), ("0.69", "at bound")):
        with pytest.raises(JstarError, match=words):
            pilot_truth(pilot, sigma, EQUAL, QUIETER)
    table = pd.read_csv(pilot)
    table[table["floor"] == "zero"].to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(JstarError, match="no law has the floor 'optimal'"):
        pilot_truth(tmp_path / "bare.csv", None, EQUAL, QUIETER)


def found_in(design, truth, studies):
    """alpha under the true floor, of real synthetic studies."""
    alphas = []
    for index in range(studies):
        losses, curve = simulate_design(design, truth, 23, index)
        points = joint_points(losses, "loss", tuple(curve.iloc[0][["loss", "stderr"]]), "size")
        alphas.append(float(exponents(fit_joint(points)[1].theta["optimal"])[0][0]))
    return np.array(alphas)


@pytest.mark.parametrize(
    ("design", "optimal_error"), [("equal", 0.0), ("equal", 0.01), ("isoFLOP", 0.0)]
)
def test_the_expected_width_is_the_scatter_of_studies(design, optimal_error):
    made = EQUAL if design == "equal" else StudyDesign.iso_flop(SIZES, [1e12, 5e12, 2e13], COST)
    truth = stated_truth(made, replace(MEASURED, optimal_error=optimal_error), None, 0.9)
    expected = expect(made, truth, worlds=("optimal",))
    alphas = found_in(made, truth, 30)
    assert expected.alpha == pytest.approx(-0.175)
    assert expected.width / 3.92 == pytest.approx(alphas.std(), rel=0.35)
    assert expected.power(truth.alpha).value <= 0.2  # the truth is left out seldom
    assert expected.power(-1.0).value == 1


def test_expected_verdicts_are_those_of_studies():
    """A quiet design tells both worlds, a loud one neither."""
    for errors, telling in ((QUIETER, True), (replace(MEASURED, snapshot_noise=0.3), False)):
        truth = stated_truth(EQUAL, errors, None, 0.5)
        found = expect(EQUAL, truth, studies=4, seed=5)
        right = (("optimal", CORRECTED, truth), ("zero", RAW, without_floor(EQUAL, truth)))
        for world, verdict, law in right:
            assert found.verdicts[world].count(verdict if telling else UNDECIDED) >= 3
            losses, curve = simulate_design(EQUAL, law, 5, 3)
            known = tuple(curve.iloc[0][["loss", "stderr"]])
            alone = judge(joint_points(losses, "loss", known, "size"), 0.95, DRAWS, 3)
            assert found.verdicts[world][3] == alone.verdict


def test_a_share_of_few_studies_has_its_error():
    assert str(Share.of([True] * 7 + [False] * 5)) == "58% ± 14%"
    assert str(Share.of([False] * 12)) == "0% ± 7%"  # not 0: one more may be a hit


def test_more_seeds_tell_exponents_apart():
    truth = stated_truth(EQUAL, MEASURED, None, 0.9)
    few, many = (
        expect(replace(EQUAL, seeds=(s,) * 6), truth, studies=8, worlds=("optimal",))
        for s in (1, 8)
    )
    assert many.width < 0.6 * few.width
    assert few.power(-0.2).value < many.power(-0.2).value
    assert many.power(-0.3).value == 1


def test_a_design_without_a_joint_law_says_why():
    two = StudyDesign.even(SIZES[:2], [1e6, 1e6], 8, 0.1)
    with pytest.raises(JstarError, match="2 sizes, a joint law needs 3"):
        expect(two, stated_truth(two, QUIETER, None, 0.5))
    for law, words in (({"a": 0.0}, "exponent a = 0"), ({}, "floor share = 1")):
        with pytest.raises(JstarError, match=words):
            stated_truth(two, replace(QUIETER, **law), None, 1.0)
