"""What stands between a test of floors and a word: a law that foretells, fitted after the onset."""

import numpy as np
import pytest

from jstar.config import FitConfig
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.held_out import HeldOut, Prediction
from jstar.scaling.noise_scales import _foretold, fit_study
from jstar.scaling.verdict import CORRECTED, UNDECIDED, JointScale

SIZES = np.geomspace(1e5, 1e7, 6)
DESIGN = StudyDesign.even(SIZES, list(np.geomspace(1e10, 3e12, 6) / 6 / SIZES), 18, 1 / 30)


@pytest.mark.parametrize(
    ("ratio", "verdict", "left"),
    [(1.3, CORRECTED, UNDECIDED), (1.05, CORRECTED, CORRECTED), (1.3, UNDECIDED, UNDECIDED)],
)
def test_a_word_needs_a_law_that_foretells_the_largest_compute(ratio, verdict, left):
    floors = dict.fromkeys(("optimal", "free"), Prediction(1.0, -0.2, ratio, 0.9, 1.1, 0.5))
    found = _foretold(JointScale("converged", verdict=verdict, reason="as it was"),
                      (HeldOut(0.8, 1e12, 20, {}, floors),))  # fmt: skip
    assert found.verdict == left
    assert ("measured / predicted 1.3 in [0.9, 1.1]" in found.reason) == (left != verdict)
    assert _foretold(found, ()) == found


@pytest.mark.parametrize("onset", [True, False])
def test_the_joint_law_alone_begins_at_the_onset(onset):
    losses, _ = simulate_design(DESIGN, JointTruth(snapshot_noise=0.003), 11, 0)
    late = np.log(losses["images"] / losses.groupby("params")["images"].transform("median")) / 0.3
    losses["loss"] *= 1 + 0.3 / (1 + np.exp(late + 1))
    table = losses.drop(columns="gap").assign(source="t", line=1)
    config = FitConfig(bootstrap=100, calibration=100, onset=onset)
    fits = fit_study(table, None, config, None)
    (scale,), start = fits.scales, fits.onsets["fitted_from"].iloc[0]
    assert start > 0
    assert len(scale.rows) == len(losses)  # envelope and isoFLOP minima keep every snapshot
    later = (losses["images"] >= start).sum() if onset else len(losses)
    assert scale.rows["fitted"].sum() == later < len(losses) + (not onset)
    assert scale.joint.laws["free"].n == later
