"""A held-out prediction can fail: a right law hits, a broken one misses, a short ladder is mute."""

from collections import Counter

import numpy as np
import pytest

from jstar.scaling.held_out import rolling
from jstar.scaling.joint import joint_points
from jstar.scaling.noise_scales import with_gap
from jstar.scaling.simulate import TrueStudy, simulate_study

LONG = TrueStudy(sizes=(1e5, 1e7, 5), images=(1e4, 3e6, 12), sigmas=(1.0,))
SHORT = TrueStudy(sizes=(1e5, 3e5, 4), images=(1e4, 3e4, 12), sigmas=(1.0,), snapshot_noise=0.03)


def predictions(truth, studies, bend=0.0):
    """Last cut of simulated studies whose gap turns by F^bend in the top fifth of ln F."""
    made = []
    for index in range(studies):
        losses, curve = simulate_study(truth, 0, index)
        x = np.log(losses["flops"])
        turn = np.exp(bend * np.maximum(x - x.max() + 0.2 * np.ptp(x), 0))
        rows, _ = with_gap(losses.assign(gap=losses["gap"] * turn), float(curve["loss"][0]))
        points = joint_points(rows, "loss_fit", (float(curve["loss"][0]), 0.0), "size")
        made.append(rolling(points, rows, {"optimal"}, 0.95, index)[-1])
    return made


def test_a_right_law_hits_and_predicts_the_loss():
    cuts = predictions(LONG, 24)
    laws = [cut.by_floor["optimal"] for cut in cuts]
    assert Counter(law.says for law in laws)["hit"] >= 21  # 95 % expected, 90 % asked: 21.6
    assert np.median([law.ratio for law in laws]) == pytest.approx(1, abs=0.01)
    assert all(law.high / law.low < 1.1 for law in laws)
    # Without a floor the same losses are predicted worse.
    assert np.median([cut.rms["zero"] / cut.rms["optimal"] for cut in cuts]) > 2


@pytest.mark.parametrize("bend", [0.1, -0.1])
def test_a_law_that_breaks_in_the_top_fifth_misses(bend):
    laws = [cut.by_floor["optimal"] for cut in predictions(LONG, 8, bend)]
    assert [law.says for law in laws].count("miss") >= 7
    assert all((law.ratio > 1) == (bend > 0) for law in laws)


def test_a_ladder_too_short_for_its_noise_is_uninformative():
    laws = [cut.by_floor["optimal"] for cut in predictions(SHORT, 12)]
    assert [law.says for law in laws].count("uninformative") >= 8
    assert np.median([np.log(law.high / max(law.low, 1e-9)) / law.fall for law in laws]) > 1


def test_less_compute_predicts_with_a_wider_band():
    losses, curve = simulate_study(LONG, 0, 0)
    rows, _ = with_gap(losses, float(curve["loss"][0]))
    points = joint_points(rows, "loss_fit", (float(curve["loss"][0]), 0.0), "size")
    cuts = rolling(points, rows, {"optimal", "free"}, 0.95, 0)
    assert [cut.share for cut in cuts] == sorted(cut.share for cut in cuts)
    assert len({cut.n for cut in cuts}) == 1  # always the same points
    width = [np.log(cut.by_floor["optimal"].high / cut.by_floor["optimal"].low) for cut in cuts]
    assert width[0] > 1.2 * width[-1]
    again = rolling(points, rows, {"optimal", "free"}, 0.95, 0)
    assert again == cuts
    assert rolling("3 sizes are missing", rows, {"free"}, 0.95, 0) == ()
