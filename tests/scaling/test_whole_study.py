"""Noise scales share their runs: how much, and what that makes of the number of verdicts."""

from dataclasses import replace

import numpy as np
import pytest

from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.joint import fit_joint, joint_points
from jstar.scaling.joint_many import Luck
from jstar.scaling.verdict import CORRECTED, RAW, UNDECIDED, JointScale, Studies
from jstar.scaling.whole_study import errors_of, expected_frame, expected_verdicts, shared_share

DESIGN = StudyDesign.even(np.geomspace(1e5, 1e7, 6), [2e6] * 6, 13, 1 / 14)
QUIET = {"free": np.zeros(400, bool), "optimal": np.zeros(400, bool), "zero": np.zeros(400, bool)}


def points(index, noise=None):
    losses, _ = simulate_design(DESIGN, JointTruth(snapshot_noise=0.01), 3, index)
    if noise is not None:
        losses["loss"] *= np.exp(noise)
    return joint_points(losses, "loss", (1.0, 0.0), "size")


def test_the_share_is_what_errors_have_in_common():
    rng = np.random.default_rng(0)
    apart = [errors_of(fit_joint(points(k))) for k in range(6)]
    assert shared_share(apart) < 0.15
    common = 0.05 * rng.standard_normal(len(apart[0]))
    together = [errors_of(fit_joint(points(k, common))) for k in range(6)]
    assert shared_share(together) > 0.85
    assert shared_share([apart[0], None, None]) == 0.0
    assert errors_of("2 sizes, a joint law needs 3") is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_luck_is_standard_normal_and_shared_by_that_much(share):
    def luck(own):
        return Luck(np.random.default_rng(own), np.random.default_rng(9), share)

    one, other = (luck(own).normal((300, 100)).ravel() for own in (1, 2))
    assert one.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(share, abs=0.02)
    alone = Luck(np.random.default_rng(1)).normal((5,))
    assert (alone == np.random.default_rng(1).standard_normal(5)).all()


def scale(p_zero_Q, verdict=UNDECIDED):
    """A noise scale of 400 studies that reject no floor with these p, and never J*."""
    fine = {
        "zero_high": p_zero_Q, "zero_low": np.ones(400), "optimal_high": np.full(400, 0.5),
        "optimal_low": np.full(400, 0.5),
    }  # fmt: skip
    studies = Studies(fine, fine, QUIET)
    return JointScale(
        "converged", verdict=verdict, optimal=1.0, resolution=0.1,
        studies={"zero": studies, "optimal": studies},
    )  # fmt: skip


def test_a_study_is_adjusted_for_all_its_noise_scales():
    """Benjamini & Hochberg by hand: .01 alone among 5 is .05 and no word, with four like it one."""
    lone = [scale(np.full(400, 0.01)), *[scale(np.full(400, 0.9))] * 4]
    assert (expected_verdicts(lone, 0.95)["optimal"] == UNDECIDED).all()
    many = [scale(np.full(400, 0.01))] * 5
    assert (expected_verdicts(many, 0.95)["optimal"] == CORRECTED).all()
    flawed = [replace(s, studies={w: replace(one, flawed={**QUIET, "optimal": ~QUIET["optimal"]})
                                  for w, one in s.studies.items()}) for s in many]  # fmt: skip
    assert (expected_verdicts(flawed, 0.95)["optimal"] == UNDECIDED).all()


def test_studies_that_share_their_luck_find_all_or_nothing():
    """The mean is the same, the spread is not: what independent noise scales would promise."""
    rng = np.random.default_rng(1)
    lucky = rng.random(400) < 0.5
    same = [scale(np.where(lucky, 1e-4, 0.9), CORRECTED)] * 10
    apart = [scale(np.where(rng.random(400) < 0.5, 1e-4, 0.9), CORRECTED) for _ in range(10)]
    rows = [
        frame[(frame["world"] == "optimal") & (frame["verdict"] == CORRECTED)].iloc[0]
        for frame in (expected_frame(same, 0.95), expected_frame(apart, 0.95))
    ]
    assert next((r["low"], r["high"]) for r in rows) == (0, 10)
    assert rows[1]["low"] >= 2
    assert rows[1]["high"] <= 8
    assert rows[0]["found"] == rows[0]["of"] == 10


def test_nothing_is_expected_without_an_optimal_loss():
    assert expected_frame([JointScale("none", verdict=RAW)], 0.95).empty
