"""Denoisers compared on the same draws: known differences, and no difference claimed by chance."""

import numpy as np
import pandas as pd
import pytest
import torch

import jstar
from jstar.diagnose.measure import Diagnosis
from jstar.diagnose.side_by_side import side_by_side
from jstar.diagnose.solver import Identification
from jstar.diagnose.stage import Finding
from jstar.errors import JstarError
from jstar.noise import process
from jstar.records import read_json

FEW = {"sigma_min": 0.05, "sigma_max": 20, "sigmas": 8, "queries": 48}
SIGMA = np.geomspace(0.05, 20, 24)


def added(exact, below, above):
    """The exact denoiser with a constant added, another one on either side of sigma = 1."""

    def denoise(x, sigma, labels):
        offset = torch.where(sigma < 1, below, above).reshape(-1, 1, 1, 1)
        return exact(x, sigma) + offset

    return denoise


def test_a_known_difference(exact, points, tmp_path):
    pair = {"small": added(exact, 0.03, 0.2), "large": added(exact, 0.05, 0.1)}
    found = jstar.diagnose(pair, points, held_out=points[::2], out=tmp_path, **FEW)
    frame = pd.read_csv(tmp_path / "comparison.csv")
    low = frame["sigma"] < 1
    np.testing.assert_allclose(frame["difference"][low], 0.05**2 - 0.03**2, rtol=1e-3)
    np.testing.assert_allclose(frame["difference"][~low], 0.1**2 - 0.2**2, rtol=1e-3)
    assert set(frame["better"][low]) == {"small"}
    assert set(frame["better"][~low]) == {"large"}
    # On held-out images (of the same ones here) the losses differ by as much, within errors.
    off = (frame["held_out_difference"] - frame["difference"]) / frame["held_out_difference_se"]
    assert (off.abs() < 5).all()
    assert "large against small, on the same draws: it is better at sigma = " in found.words
    assert found.summary().count("Verdict:") + found.summary().count("Warning") >= 2
    assert len(found.to_frame()) == 8
    assert [f.diagnosis.name for f in found.findings] == ["small", "large"]
    for file in ("comparison.png", "comparison.md", "1/diagnosis.json", "2/diagnosis.csv"):
        assert (tmp_path / file).stat().st_size > 0
    facts = read_json(tmp_path / "comparison.json")
    gap_as_trained, bound = facts["totals"]
    width = np.gradient(np.log(frame["sigma"])) / frame["sigma"] ** 2
    assert bound["difference"] == pytest.approx(
        float((width * frame["difference"]).sum()), rel=1e-4
    )
    assert bound["better"] == "small"
    assert gap_as_trained["value_first"] == pytest.approx(
        found.findings[0].diagnosis.total("gap"), rel=1e-6
    )


def drawn(name, gap_SM):
    """A finding with these gaps."""
    unknown = np.full(len(SIGMA), np.nan)
    frame = pd.DataFrame({"sigma": SIGMA, "gap": gap_SM.mean(1), "held_out": unknown})
    made = Diagnosis(name, process("edm"), "none", 10, gap_SM.shape[1], frame, gap_SM=gap_SM)
    return Finding(Identification("unsure", "", ()), made, "")


def test_equal_denoisers_are_not_told_apart_and_unequal_ones_are():
    """Draws that are hard for both; of 60 equal pairs at most 5 % + chance are told apart."""
    rng = np.random.default_rng(0)
    told = seen = 0
    for _ in range(60):
        hard_M = rng.lognormal(0, 1.5, size=200)
        one, two = (hard_M * rng.lognormal(0, 0.1, size=(len(SIGMA), 200)) for _ in range(2))
        found = side_by_side([drawn("a", one), drawn("b", two)])
        told += (found.frame["better"] != "cannot tell").any()
        better = side_by_side([drawn("a", one), drawn("b", 0.8 * two)]).frame
        seen += (better["better"] == "b").mean()
    assert told <= 0.05 * 60 + 5
    # Unpaired, 20 % would be within the error: `hard_M` varies by 290 % of its mean.
    assert seen / 60 > 0.9


def test_three_against_the_first():
    rng = np.random.default_rng(1)
    gaps = [scale * rng.lognormal(size=(len(SIGMA), 400)) for scale in (1, 0.1, 1)]
    found = side_by_side([drawn(n, g) for n, g in zip("abc", gaps, strict=True)])
    assert list(found.frame["other"].unique()) == ["b", "c"]
    assert set(found.frame["better"][found.frame["other"] == "b"]) == {"b"}
    assert len(found.totals) == 4


def test_refusals(exact, points):
    with pytest.raises(JstarError, match="1 in the list, give at least two"):
        jstar.diagnose([exact], points)
    with pytest.raises(JstarError, match="is int, allowed are .* a list or dict"):
        jstar.diagnose([exact, 3], points)
    one = jstar.diagnose.Adapter("told", exact, conditional=True)
    with pytest.raises(JstarError, match="told are given labels and the others not"):
        jstar.diagnose([exact, one], points)
