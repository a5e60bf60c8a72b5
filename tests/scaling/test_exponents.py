"""What exponents a noise scale may claim, and what a law at its bound is worth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ks_2samp

from jstar.scaling import verdict
from jstar.scaling.calibration import draw_worlds, with_more_nulls
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.first_look import first_look, more_nulls_needed
from jstar.scaling.joint import FLOORS, fit_joint, joint_points
from jstar.scaling.joint_law import at_bound
from jstar.scaling.joint_many import LOWEST
from jstar.scaling.verdict import (
    ABOVE,
    CORRECTED,
    RAW,
    UNDECIDED,
    Rates,
    Studies,
    conclude,
    judge,
    spent_on_verdict,
)

SIZES = np.geomspace(1e5, 1e7, 6)
EQUAL = StudyDesign.even(SIZES, [2e6] * 6, 13, 1 / 14)
TOO_SMALL = JointTruth(floor=0.0, optimal=0.001, run_noise=0.03)  # J*, for any verdict


def points(truth, index):
    losses, curve = simulate_design(EQUAL, truth, 4, index)
    return joint_points(losses, "loss", (float(curve["loss"].iloc[0]), 0.0), "size")


def looked(truth, seed):
    return first_look(fit_joint(points(truth, seed)), 100, seed)


def test_no_law_with_a_floor_below_zero_widens_the_exponents():
    """Half of the studies without a floor ask for one below 0, which no loss can have."""
    truth = TOO_SMALL
    scales = [judge(points(truth, index), 0.95, 150, index) for index in range(6)]
    below = [s for s in scales if s.laws["free"].E < 0]
    above = [s for s in scales if s.laws["free"].E > 0]
    assert below
    assert above
    for scale in scales:  # J* = .001 is too small for any verdict
        free, law = scale.laws["free"], scale.alpha
        assert scale.verdict == UNDECIDED
        assert law.low["alpha"] <= truth.alpha <= law.high["alpha"]
        assert law.low["E"] == (0 if free.E < 0 else free.low["E"])
        assert law.high["alpha"] <= free.high["alpha"] + 1e-9
    for scale in below:
        assert (scale.alpha.floor, scale.alpha.alpha) == ("zero", scale.laws["zero"].alpha)
    for scale in above:
        assert (scale.alpha.floor, scale.alpha.alpha) == ("free", scale.laws["free"].alpha)
    widths = [s.alpha.high["alpha"] - s.alpha.low["alpha"] for s in scales]
    unbounded = [s.laws["free"].high["alpha"] - s.laws["free"].low["alpha"] for s in scales]
    assert np.mean(widths) < np.mean(unbounded)


@pytest.mark.parametrize(("floor", "said"), [("zero", RAW), ("optimal", CORRECTED)])
def test_studies_at_a_bound_are_undecided_in_the_printed_rates(floor, said):
    """A power of .59 was printed where .37 was found: a law at a bound decides nothing."""
    truth = JointTruth(floor=0.0, optimal=0.5) if floor == "zero" else JointTruth()
    found, fits, power = fit_joint(points(truth, 0))
    worlds = draw_worlds(found, fits, power, 150, 0, FLOORS)
    wide = worlds.wide[floor]
    theta = wide.fits.theta[floor].copy()
    assert not at_bound(theta, floor).any()
    theta[::3, 1] = LOWEST[1]
    assert at_bound(theta, floor).sum() == 50
    spoilt = replace(wide, fits=replace(wide.fits, theta=wide.fits.theta | {floor: theta}))
    before, after = (
        verdict._rates(
            worlds, {name: Studies.of(worlds, world) for name, world in wide.items()}, 0.95,
            small=False,
        )
        for wide in (worlds.wide, worlds.wide | {floor: spoilt})
    )  # fmt: skip
    assert before(floor, said) > 0.8
    assert after(floor, said) == pytest.approx(before(floor, said) * 2 / 3, abs=0.05)
    assert after(floor, UNDECIDED) > 0.3


def test_an_interval_beside_a_verdict_counts_the_studies_that_are_judged_wrongly():
    """2 % are called `above` where J* is the floor, and miss alpha: 95 % then take 97."""
    scale = judge(points(JointTruth(), 1), 0.95, 300, 1)
    assert scale.verdict == CORRECTED
    spent = spent_on_verdict(scale.rates, "optimal", 0.95)
    assert spent == pytest.approx(min(scale.rates("optimal", ABOVE, RAW), 0.025))
    assert spent > 0
    for name in ("alpha", "size_exponent"):
        law, alone = scale.alpha, scale.laws["optimal"]
        assert law.low[name] < alone.low[name]
        assert law.high[name] > alone.high[name]
        assert getattr(law, name) == getattr(alone, name)
    assert scale.alpha.low["E"] == scale.laws["optimal"].low["E"]


@pytest.mark.parametrize(("wrong", "spent"), [(0.0, 0.0), (0.01, 0.01), (0.4, 0.025)])
def test_at_most_half_of_what_the_confidence_leaves_is_spent_on_the_verdict(wrong, spent):
    rates = Rates({("optimal", ABOVE): wrong, ("optimal", RAW): 0.0,
                   ("zero", ABOVE): 0.0, ("zero", CORRECTED): wrong})  # fmt: skip
    assert spent_on_verdict(rates, "optimal", 0.95) == pytest.approx(spent)
    assert spent_on_verdict(rates, "zero", 0.95) == pytest.approx(spent)


def test_testing_many_noise_scales_draws_more_studies_where_a_p_value_is_small():
    """Of 300 studies no p-value is below 1/301, which testing 17 scales makes .056: no verdict."""
    look = looked(JointTruth(), 1)
    unclear = looked(TOO_SMALL, 2)
    more = more_nulls_needed([look, "none", *15 * [unclear], unclear], 0.95)
    assert more == [{"zero": 17 * 2 / 0.025}, *17 * [{}]]
    alone, among = (conclude(look, 0.95, m) for m in ({}, more[0]))
    assert alone.p["zero_high"] == pytest.approx(1 / 101)
    assert among.p["zero_high"] == pytest.approx(1 / (17 * 2 / 0.025 + 1))
    assert among.p["zero_high"] * 17 < 0.025
    assert among.p["optimal_high"] == pytest.approx(alone.p["optimal_high"], abs=0.2)
    assert (among.rates.of, among.laws["optimal"].low) == (
        alone.rates.of,
        alone.laws["optimal"].low,
    )


def test_small_p_values_that_are_many_need_no_more_studies():
    """17 of 17 at 1/101 are .0099 together, four of 17 .042: these need twice as fine ones."""
    clear = looked(JointTruth(), 1)
    unclear = looked(TOO_SMALL, 2)
    assert more_nulls_needed(17 * [clear], 0.95) == 17 * [{}]
    for many in (2, 4):
        needed = {"zero": 17 * 2 / 0.025 / many}
        found = more_nulls_needed(many * [clear] + (17 - many) * [unclear], 0.95)
        assert found == many * [needed] + (17 - many) * [{}]
        # That many are enough for all of them to stay below the level.
        assert false_discovery_control(
            many * [1 / (needed["zero"] + 1)] + (17 - many) * [1.0]
        )[0] < 0.025  # fmt: skip


def test_a_small_p_value_that_studies_stand_for_is_estimated_from_all_that_it_may_take():
    """.01 of 300 was .021 of 1,360: a word rested on which it was."""
    clear = looked(JointTruth(), 1)
    few = replace(clear, tails=replace(clear.tails, zero_high=np.array([4 / 101])))
    assert more_nulls_needed([few, *16 * [clear]], 0.95) == [{"zero": 1360}, *16 * [{}]]
    many = replace(clear, tails=replace(clear.tails, zero_high=np.array([11 / 101])))
    assert more_nulls_needed([many, *16 * [clear]], 0.95) == 17 * [{}]


def test_choosing_what_to_estimate_anew_makes_no_word_more_frequent():
    """A world of 17 noise scales without a floor: 2.5 % of studies may find one anywhere."""
    clear, rng, m = looked(JointTruth(), 1), np.random.default_rng(0), 17
    found, careless = [], []
    for _ in range(4000):
        first = rng.integers(1, 102, m) / 101  # what 100 studies make of a p-value
        looks = [replace(clear, tails=replace(clear.tails, zero_high=p[None])) for p in first]
        last = first.copy()
        for k, more in enumerate(more_nulls_needed(looks, 0.95)):
            if "zero" in more:
                last[k] = rng.integers(1, more["zero"] + 2) / (more["zero"] + 1)
        found.append(false_discovery_control(last).min() <= 0.025)
        careless.append(false_discovery_control(np.minimum(first, last)).min() <= 0.025)
    assert np.mean(found) <= 0.025 + 3 * np.sqrt(0.025 / 4000)
    assert np.mean(careless) >= np.mean(found)


def test_a_p_value_that_was_small_by_chance_starts_anew():
    """The second studies are none of the first: with those the p-value would be too small."""
    found, fits, power = fit_joint(points(JointTruth(), 1))
    worlds = draw_worlds(found, fits, power, 150, 1, FLOORS)
    more = with_more_nulls(worlds, {"zero": 400, "optimal": 400}, found, fits, power, 1)
    assert set(more.null) == set(worlds.null)
    assert more.null["free"] is worlds.null["free"]  # tests nothing
    assert more.wide is worlds.wide
    one = with_more_nulls(worlds, {"optimal": 400}, found, fits, power, 1)
    assert one.null["zero"] is worlds.null["zero"]  # whose p-value was fine enough
    assert (one.null["optimal"].optimal_Q == more.null["optimal"].optimal_Q).all()
    for floor, root in (("zero", "from_zero_Q"), ("optimal", "from_optimal_Q")):
        first, second = (getattr(w.null[floor].fits, root) for w in (worlds, more))
        assert len(second) == 400
        assert not set(first) & set(second)
        assert ks_2samp(first, second).pvalue > 1e-3  # of one law
