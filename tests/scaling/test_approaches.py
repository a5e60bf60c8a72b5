"""Envelope, isoFLOP minima and joint law beside each other, through the same function as `fit`."""

import json

import numpy as np
import pandas as pd
import pytest
from known_laws import CHINCHILLA, by_budget, ladder

from jstar.config import FitConfig
from jstar.scaling.approaches import agreement
from jstar.scaling.simulate import TrueStudy, simulate_study
from jstar.scaling.stage import write_fits

CONFIG = FitConfig(bootstrap=200, calibration=100)
ORDER = ["envelope", "isoflop", "joint"]


@pytest.fixture
def fit(tmp_path):
    """`fit(losses, curve)`: table of approaches by approach, and the sentence, of one sigma."""

    def run(losses, curve=None):
        losses = losses if "sigma" in losses else losses.assign(sigma=1.0)
        losses.to_csv(tmp_path / "losses.csv", index=False)
        if curve is not None:
            curve.to_csv(tmp_path / "curve.csv", index=False)
        optimal = None if curve is None else tmp_path / "curve.csv"
        fits = tmp_path / "fits"
        write_fits([tmp_path / "losses.csv"], optimal, fits, config=CONFIG, process=None)
        table = pd.read_csv(fits / "approaches.csv")
        assert list(table["approach"]) == ORDER
        (sentence,) = json.loads((fits / "fits.json").read_text())["agreement"].values()
        assert sentence == agreement(table)
        assert sentence in (fits / "tables" / "checklist.md").read_text()
        return table.set_index("approach"), sentence

    return run


def curve_of(loss):
    return pd.DataFrame({"sigma": [1.0], "loss": [loss], "stderr": [0.002]})


def test_three_approaches_agree_where_sizes_cross(fit):
    truth = TrueStudy(sigmas=(1.0,))
    table, sentence = fit(*simulate_study(truth, 0))
    assert (table["status"] == "converged").all()
    assert set(table["floor"]) == {"optimal"}
    size = truth.b / (truth.a + truth.b)
    assert table["alpha"].to_numpy() == pytest.approx(truth.alpha, abs=0.005)
    assert table["size_exponent"].to_numpy() == pytest.approx(size, abs=0.03)
    for low, value, high in (("alpha_low", truth.alpha, "alpha_high"),
                             ("size_low", size, "size_high")):  # fmt: skip
        assert (table.loc[ORDER[:2], low] < value).all()
        assert (table.loc[ORDER[:2], high] > value).all()
    assert "the envelope (α = −0.1" in sentence
    assert sentence.endswith("agree within their intervals.")


def test_budgets_give_chinchillas_exponents_with_and_without_a_floor_given(fit):
    losses = by_budget(CHINCHILLA, np.geomspace(6e18, 3e21, 9), 7, 1.2, noise=0.003)
    widths = []
    for curve, floor in ((curve_of(CHINCHILLA["E"]), "optimal"), (None, "free")):
        table, sentence = fit(losses, curve)
        isoflop = table.loc["isoflop"]
        assert list(table["floor"].unique()) == [floor]
        assert list(table["status"]) == ["no crossing", "converged", "converged"]
        assert isoflop["size_exponent"] == pytest.approx(0.513, abs=0.01)
        assert isoflop["size_low"] < 0.5126 < isoflop["size_high"]
        assert isoflop["alpha"] == pytest.approx(-0.1784, abs=0.003)
        assert isoflop["alpha_low"] < -0.1784 < isoflop["alpha_high"]
        widths.append(isoflop["alpha_high"] - isoflop["alpha_low"])
        assert sentence.endswith(
            "agree within their intervals; not to be used: the envelope (no crossing)."
        )
    assert widths[1] > 1.1 * widths[0]  # a floor that has to be fitted is known less well


def test_equal_images_leave_the_joint_law_alone(fit):
    images = np.geomspace(1e7, 2e8, 20)
    losses = ladder(np.geomspace(1e7, 4e8, 6), lambda n: 6 * n * images)
    rng = np.random.default_rng(0)
    losses["loss"] *= 1 + 0.0003 * rng.standard_normal(len(losses))
    table, sentence = fit(losses, curve_of(CHINCHILLA["E"]))
    assert list(table["status"]) == ["no crossing", "no minimum inside", "converged"]
    assert table.loc["joint", "alpha"] == pytest.approx(-0.178, abs=0.01)
    assert np.isnan(table.loc[["envelope", "isoflop"], "size_exponent"]).all()
    assert "only the joint law (α = −0.1" in sentence
    assert "not to be used: the envelope (no crossing) and isoFLOP minima (no" in sentence


def test_sizes_that_share_no_compute_are_fitted(fit):
    losses = ladder(np.geomspace(1e5, 1e8, 4), lambda n: 1e11 * n * np.linspace(1, 2, 6))
    table, sentence = fit(losses)
    assert table.loc["isoflop", "status"] == "no compute that three sizes share"
    assert "isoFLOP minima (no compute that three sizes share)" in sentence


def rows(*spec):
    columns = ["approach", "alpha", "alpha_low", "alpha_high", "size_exponent", "size_low",
               "size_high", "status"]  # fmt: skip
    return pd.DataFrame([dict(zip(columns, s, strict=True)) for s in spec]).assign(floor="zero")


def test_the_sentence_says_who_disagrees_and_who_is_silent():
    nan = float("nan")
    envelope = ("envelope", -0.1, -0.12, -0.08, nan, nan, nan, "converged")
    isoflop = ("isoflop", -0.2, -0.22, -0.18, 0.5, 0.45, 0.55, "converged")
    joint = ("joint", -0.19, -0.2, -0.18, 0.6, 0.58, 0.62, "converged")
    text = agreement(rows(envelope, isoflop, joint))
    assert text == (
        "With no floor the envelope (α = −0.100 [−0.120, −0.080]), isoFLOP minima (α = −0.200 "
        "[−0.220, −0.180], N ∝ F^0.50 [0.45, 0.55]) and the joint law (α = −0.190 [−0.200, "
        "−0.180], N ∝ F^0.60 [0.58, 0.62]) do not agree in α and the size exponent."
    )
    unknown = (*isoflop[:2], nan, nan, *isoflop[4:])
    text = agreement(rows((*envelope[:-1], "no crossing"), unknown, joint))
    assert "do not agree in the size exponent; not to be used: the envelope (no crossing)" in text
    lost = [(*r[:-1], "at bound") for r in (envelope, isoflop, joint)]
    assert agreement(rows(*lost)).startswith("No approach gives an exponent: the envelope (at")
