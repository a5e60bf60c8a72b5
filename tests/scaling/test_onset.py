"""From where on a study is fitted: after curves last bend down, and never because of a floor."""

import numpy as np
import pandas as pd
import pytest

from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.onset import before, onset_frame

SIZES = np.geomspace(1e5, 1e7, 6)
DESIGN = StudyDesign.even(SIZES, list(np.geomspace(1e10, 3e12, 6) / 6 / SIZES), 18, 1 / 30)
LAWS = {"no floor": {"floor": 0.0, "optimal": 0.5}, "J*": {}, "above J*": {"floor": 1.4}}


def study(truth, index=0, onset_at=None, height=0.3):
    """A simulated table; with onset_at (a function of N) plateaus that end there."""
    losses, _ = simulate_design(DESIGN, truth, 11, index)
    if onset_at is not None:
        late = np.log(losses["images"] / losses["params"].map(onset_at)) / 0.3
        losses["loss"] *= 1 + height / (1 + np.exp(late))
    return losses.assign(loss_fit=losses["loss"])


@pytest.mark.parametrize("floor", [0.0, 0.2, 5.0])
def test_every_law_is_convex_in_ln_images(floor):
    """Why the rule may not know the floor: a plateau is no floor, and no exponents make one."""
    rng, x = np.random.default_rng(0), np.linspace(0, 6, 200)
    for a, b in rng.uniform(0.05, 4, (50, 2)):
        part = rng.uniform(0, 1)
        law = np.log(floor + part * 3.0**-a + (1 - part) * np.exp(-b * x))
        assert (np.diff(law, 2) > -1e-12).all()


@pytest.mark.parametrize("world", LAWS)
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_noise_is_no_onset(world, correlation):
    """False alarms: of 6 x 30 curves a few, whatever the floor and however noise is correlated."""
    truth = JointTruth(**LAWS[world], snapshot_noise=0.03, correlation=correlation)
    found = pd.concat([onset_frame(study(truth, index)) for index in range(30)])
    assert (found["onset"] > 0).mean() < 0.03


def test_plateaus_are_found_size_by_size_and_left_out_for_all():
    truth = JointTruth(snapshot_noise=0.003, run_noise=0.01)
    ends = {n: DESIGN.images[k][6] for k, n in enumerate(SIZES)}
    rows = study(truth, onset_at=lambda n: ends[n])
    found = onset_frame(rows).set_index("params")
    ratio = found["onset"] / pd.Series(ends)
    assert ((ratio > 0.6) & (ratio < 2)).all()
    assert (found["bend_in_se"] < -5).all()
    early = before(rows, found.reset_index())
    second = found["onset"].sort_values().iloc[-2]
    assert (found["fitted_from"] == second).all()
    assert (early == (rows["images"] < second)).all()
    assert early.any()


def test_one_size_alone_moves_nothing():
    truth = JointTruth(snapshot_noise=0.003)
    rows = study(truth, 4, onset_at=lambda n: DESIGN.images[2][6] if n == SIZES[2] else 1.0)
    found = onset_frame(rows)
    assert found["onset"].max() > 0
    assert (found["fitted_from"] == 0).all()


def test_one_noise_scale_is_enough_and_seeds_are_averaged():
    truth = JointTruth(snapshot_noise=0.003)
    calm = [study(truth, k).assign(sigma=float(k + 1)) for k in range(3)]
    ends = {n: DESIGN.images[k][6] for k, n in enumerate(SIZES)}
    bent = study(truth, 4, onset_at=lambda n: ends[n] if n == SIZES[2] else 1.0).assign(sigma=9.0)
    found = onset_frame(pd.concat([*calm, bent], ignore_index=True)).set_index("params")
    assert (found["onset"] > 0).tolist() == [False, False, True, False, False, False]
    assert found.loc[SIZES[2], "sigma"] == 9.0
    # Two seeds whose noise hides the plateau: their mean shows it.
    seeds = pd.concat([bent.assign(run=bent["run"] + f"-{k}") for k in range(2)])
    assert onset_frame(seeds)["onset"].tolist() == onset_frame(bent)["onset"].tolist()


def test_seeds_with_other_snapshots_are_other_curves():
    rows = study(JointTruth(snapshot_noise=0.003))
    other = rows.assign(run=rows["run"] + "b", images=rows["images"] * 1.1)
    found = onset_frame(pd.concat([rows, other], ignore_index=True))
    assert (found["onset"] == 0).all()


@pytest.mark.parametrize("cut", ["few snapshots", "no images"])
def test_what_cannot_be_told_leaves_nothing_out(cut):
    rows = study(JointTruth(), onset_at=lambda n: 1e5)
    rows = rows[rows["snapshot"] < 8] if cut == "few snapshots" else rows.drop(columns="images")
    found = onset_frame(rows)
    assert (found["onset"] == 0).all()
    assert list(found["params"]) == sorted(SIZES)
    assert not before(rows, found).any()
