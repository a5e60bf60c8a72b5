"""Verdicts: right where a design can tell, undecided where it cannot, and sure only of that."""

from dataclasses import replace

import numpy as np
import pytest

from jstar.scaling import fast_solve, joint_solve
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.joint import joint_points
from jstar.scaling.joint_law import law_flaw
from jstar.scaling.verdict import (
    ABOVE,
    CORRECTED,
    RAW,
    UNDECIDED,
    WRONG,
    JointScale,
    Rates,
    adjust_verdicts,
    floor_says,
    judge,
    with_verdict,
    words,
)

SIZES = np.geomspace(1e5, 1e7, 6)
EQUAL = StudyDesign.even(SIZES, [2e6] * 6, 13, 1 / 14)
CROSSING = StudyDesign.even(SIZES, list(np.geomspace(1e10, 3e12, 6) / 6 / SIZES), 13, 1 / 30)
TAILS = ("zero_high", "zero_low", "optimal_high", "optimal_low")


def judged(design, truth, index, draws=150, optimal=None):
    losses, curve = simulate_design(design, truth, 4, index)
    known = float(curve["loss"].iloc[0]) if optimal is None else optimal
    error = float(curve["stderr"].iloc[0])
    return judge(joint_points(losses, "loss", (known, error), "size"), 0.95, draws, index)


@pytest.mark.parametrize("design", [EQUAL, CROSSING], ids=["equal images", "crossing"])
@pytest.mark.parametrize(("floor", "right"), [(0.0, RAW), (1.0, CORRECTED), (1.4, ABOVE)])
def test_every_world_is_told_in_every_design(design, floor, right):
    """The old frontier called every world of the first design `corrected`."""
    truth = JointTruth(floor=floor, optimal=1.0 if floor else 0.5)
    found = [judged(design, truth, index, draws=200) for index in range(4)]
    told = [scale.verdict for scale in found]
    assert told.count(right) >= 3
    assert set(told) <= {right, UNDECIDED}
    held = [s.laws["free"].low["E"] <= floor <= s.laws["free"].high["E"] for s in found]
    assert sum(held) >= 3
    for scale in found:
        assert scale.rates("zero", CORRECTED, ABOVE) <= 0.1
        assert scale.rates("optimal", RAW) <= 0.1
        assert sum(scale.rates("zero", v) for v in (RAW, CORRECTED, ABOVE, UNDECIDED)) == (
            pytest.approx(1)
        )


def test_what_mistuning_may_cost_widens_every_interval_and_moves_no_estimate():
    losses, _ = simulate_design(CROSSING, JointTruth(), 4)

    def judged_with(mistuned):
        rows = losses.assign(mistuned=mistuned)
        return judge(joint_points(rows, "loss", (1.0, 0.0), "size"), 0.95, 200, 0)

    plain = judge(joint_points(losses, "loss", (1.0, 0.0), "size"), 0.95, 200, 0)
    assert judged_with(0.0).laws == plain.laws
    largest = losses["params"] == losses["params"].max()
    before, after = plain.laws["optimal"], judged_with(0.3 * largest).laws["optimal"]
    assert (after.alpha, after.a, after.b) == (before.alpha, before.a, before.b)
    # The largest size may be better than it was seen: then the loss falls faster over size.
    assert after.low["a"] > before.low["a"] - 0.01
    assert after.high["a"] - after.a > 2 * (before.high["a"] - before.a)
    assert after.low["alpha"] < before.low["alpha"] - 0.005


def test_a_design_too_noisy_to_tell_says_so():
    truth = JointTruth(run_noise=0.5, snapshot_noise=0.2, optimal=0.3)
    found = [judged(EQUAL, truth, index) for index in range(2)]
    assert UNDECIDED in [s.verdict for s in found]
    low = [s.rates("optimal", CORRECTED) for s in found]
    assert np.nanmean(low) < 0.5


def test_where_both_laws_are_one_nothing_is_called():
    """J* = 1e-9 of the loss: neither raw nor corrected can be evidence."""
    for floor in (0.0, 1.0):
        truth = JointTruth(floor=floor, optimal=1e-9)
        scale = judged(EQUAL, truth, 0, optimal=1e-9)
        assert scale.verdict == UNDECIDED
        assert "too small for this design" in scale.reason


def test_a_law_that_does_not_hold_is_no_evidence():
    """Losses that level off at the end of every run, by something that is no floor."""
    losses, _ = simulate_design(EQUAL, JointTruth(), 4)
    late = np.log(losses["images"] / losses["images"].max() + 0.3)
    bent = losses.assign(loss=losses["loss"] + 0.25 * np.exp(-4 * late**2) * losses["gap"])
    scale = judge(joint_points(bent, "loss", (1.0, 0.0), "size"), 0.95, 150, 0)
    assert scale.verdict == UNDECIDED or scale.alpha.misfit > 0.01


def test_an_error_of_the_floor_widens_what_it_excludes():
    """J* off by one of its own errors excludes itself only if that error is not known."""
    losses, _ = simulate_design(EQUAL, JointTruth(run_noise=0.002, snapshot_noise=0.001), 1)
    shifted = 1.06
    sure, unsure = (
        judge(joint_points(losses, "loss", (shifted, se), "size"), 0.95, 150, 0)
        for se in (0.0, 0.06)
    )
    assert sure.p["optimal_low"] < 0.025
    assert unsure.p["optimal_low"] > 0.025
    widths = [s.laws["optimal"].high["alpha"] - s.laws["optimal"].low["alpha"]
              for s in (sure, unsure)]  # fmt: skip
    assert widths[1] > 1.3 * widths[0]


def told(zero_high=0.5, zero_low=0.5, optimal_high=0.5, optimal_low=0.5, small=False):
    values = zip(TAILS, (zero_high, zero_low, optimal_high, optimal_low), strict=True)
    p = {name: np.array([value]) for name, value in values}
    return str(words(p, p, 0.025, small)[0])


def test_words():
    assert told(zero_high=0.01) == CORRECTED
    assert told(zero_high=0.01, optimal_high=0.01) == ABOVE
    assert told(optimal_low=0.01) == RAW
    assert told() == UNDECIDED
    assert told(zero_high=0.01, optimal_low=0.01) == UNDECIDED  # a floor below J*
    assert told(zero_low=0.01, optimal_low=0.01) == UNDECIDED  # below any law
    assert told(zero_high=0.01, small=True) == UNDECIDED
    assert told(zero_high=0.01, optimal_high=0.01, small=True) == ABOVE


def evidence(wrong=0.0, **p):
    tails = {**dict.fromkeys(TAILS, 0.5), **p}
    rates = Rates({("zero", CORRECTED): wrong, ("zero", ABOVE): 0.0, ("optimal", RAW): wrong,
                   ("optimal", ABOVE): wrong})  # fmt: skip
    return JointScale("converged", optimal=1.0, resolution=0.1, p=tails, rates=rates)


def test_a_verdict_that_the_design_gets_wrong_too_often_is_none():
    for p, word in (({"zero_high": 0.001}, CORRECTED), ({"optimal_low": 0.001}, RAW)):
        assert with_verdict(evidence(WRONG, **p), {**evidence(**p).p}, 0.95).verdict == word
        refused = with_verdict(evidence(WRONG + 0.01, **p), {**evidence(**p).p}, 0.95)
        assert refused.verdict == UNDECIDED
        assert "wrongly in 6% of studies" in refused.reason


def test_many_noise_scales_are_judged_together():
    """One p of .02 among twenty of no evidence is what chance gives; alone it is evidence."""
    lone = with_verdict(evidence(zero_high=0.02), evidence(zero_high=0.02).p, 0.95)
    assert lone.verdict == CORRECTED
    dull = evidence(zero_high=0.6)
    found = adjust_verdicts([lone, *[dull] * 19, JointScale("none")], 0.95)
    assert found[0].verdict == UNDECIDED
    assert adjust_verdicts([lone], 0.95)[0].verdict == CORRECTED
    strong = [evidence(zero_high=0.003)] * 15
    assert {s.verdict for s in adjust_verdicts([*strong, *[dull] * 3], 0.95)[:15]} == {CORRECTED}


def test_what_a_floor_says():
    assert floor_says(1.0, 0.9, 1.1, 1.05) == "agrees"
    assert floor_says(1.0, 0.9, 1.1, 0.5) == "asks for more than J*"
    assert floor_says(1.0, 0.9, 1.1, 1.5) == "asks for less than J*"
    assert floor_says(0.3, -0.9, 1.1, 0.5) == "cannot be told"
    assert floor_says(0.3, np.nan, 1.1, 0.5) == "cannot be told"


def test_a_flat_term_of_size_is_no_floor():
    """A size exponent near 0 imitates a floor: null studies that are fitted on one side of it
    only called two of the first three of these floorless worlds `corrected`."""
    flat = JointTruth(
        a=0.023, b=0.298, part=0.943, floor=0, optimal=0.9, run_noise=0.003, snapshot_noise=0.005,
        correlation=0.9,
    )  # fmt: skip
    told = {judged(EQUAL, flat, index).verdict for index in range(3)}
    assert told <= {RAW, UNDECIDED}


def test_what_makes_a_law_no_description():
    good = judged(EQUAL, JointTruth(), 0).laws["optimal"]

    def law_of(**changes):
        return replace(good, **changes)

    assert law_flaw(law_of()) == ""
    assert "at bound" in law_flaw(law_of(status="at bound"))
    assert "R² = 0.31" in law_flaw(law_of(r2=0.31))
    assert "does not hold" in law_flaw(law_of(misfit=0.01))
    for flaw in ({"status": "at bound"}, {"r2": -0.9}, {"misfit": 0.001}):
        scale = replace(evidence(zero_high=0.001), laws={"optimal": law_of(**flaw)})
        assert with_verdict(scale, scale.p, 0.95).verdict == UNDECIDED


@pytest.mark.skipif(fast_solve.kernel() is None, reason="no compiler here")
@pytest.mark.parametrize("floor", [0.0, 1.0, 1.4])
def test_a_verdict_does_not_depend_on_a_compiler(floor, monkeypatch):
    """Nor does what it rests on, beyond a simulated study or two in a tail."""
    truth = JointTruth(floor=floor, optimal=1.0 if floor else 0.5)
    compiled = judged(CROSSING, truth, 0, draws=200)
    monkeypatch.setattr(joint_solve, "kernel", lambda: None)
    plain = judged(CROSSING, truth, 0, draws=200)
    assert compiled.verdict == plain.verdict
    for tail, value in plain.p.items():
        assert compiled.p[tail] == pytest.approx(value, abs=0.015)
    for name, law in plain.laws.items():
        assert compiled.laws[name].alpha == pytest.approx(law.alpha, rel=1e-3)
