"""Verdicts: right where the data can tell, undecided where they cannot."""

import numpy as np
import pytest

from jstar.scaling import compare_laws
from jstar.scaling.compare import LawComparison, decide, noise_components
from jstar.scaling.fit import aicc

RUN = np.repeat(np.arange(6), 6)


def verdicts(loss_of, optimal, studies=20, noise=0.003):
    """Verdicts of `studies` synthetic studies: runs and snapshots vary by `noise`."""
    flops = np.geomspace(1e18, 1e21, 36)
    out = []
    for index in range(studies):
        rng = np.random.default_rng([8, index])
        luck = np.exp(noise * rng.standard_normal(6)[RUN] + 0.5 * noise * rng.standard_normal(36))
        loss = loss_of(flops, luck)
        out.append(compare_laws(flops, loss, optimal=optimal, run=RUN, draws=200).verdict)
    return out


def test_published_total_law_is_undecided():
    found = verdicts(lambda f, luck: (0.3675 * f**-0.014 + 0.015) * luck, 0.015)
    assert found.count("undecided") >= 19


def test_large_sigma_is_corrected():
    found = verdicts(lambda f, luck: 0.9 + 0.1 * (f / 1e18) ** -0.2 * luck, 0.9, noise=0.01)
    assert found.count("corrected") >= 19


def test_true_raw_law_is_raw():
    found = verdicts(lambda f, luck: (f / 1e18) ** -0.1 * luck, 0.3)
    assert found.count("raw") >= 19


def judged(delta, p_raw, p_corrected, ahead="raw", independent=1.0):
    """Verdict from chosen evidence; `ahead` says which law predicts the held-out compute."""
    raw, corrected = (0.1, 0.2) if ahead == "raw" else (0.2, 0.1)
    given = LawComparison("", "", delta_aicc=delta, independent=independent, p_raw=p_raw,
                       p_corrected=p_corrected,
                       heldout_raw=raw, heldout_corrected=corrected)  # fmt: skip
    return decide(given, 0.05)


def test_decisions():
    assert judged(9, 0.001, 0.5).verdict == "corrected"
    assert judged(-9, 0.5, 0.001).verdict == "raw"
    assert judged(9, 0.5, 0.5).reason == "both laws fit"
    assert judged(0.1, 0.01, 0.5).reason == "both laws predict alike"
    # Nine of AICc from points of which a tenth are independent are less than one.
    assert judged(9, 0.001, 0.5, independent=0.1).verdict == "undecided"
    assert "not exact either" in judged(9, 0.001, 0.99).reason
    # Neither is exact: what lies ahead decides.
    assert judged(9, 0.001, 0.001, ahead="raw").reason == "neither law fits"
    assert judged(9, 0.001, 0.001, ahead="corrected").verdict == "corrected"


def test_units_change_no_verdict():
    rng = np.random.default_rng(2)
    flops = np.geomspace(1e18, 1e21, 36)
    gap = 0.3 * (flops / 1e18) ** -0.2 * np.exp(0.01 * rng.standard_normal(36))
    one = compare_laws(flops, 0.4 + gap, optimal=0.4, gap=gap, run=RUN, draws=200)
    for f, j in ((1e15, 1.0), (1.0, 1e15), (1e-15, 1e-15)):
        two = compare_laws(flops * f, (0.4 + gap) * j, optimal=0.4 * j, gap=gap * j, run=RUN,
                           draws=200)  # fmt: skip
        assert two.verdict == one.verdict
        assert two.delta_aicc == pytest.approx(one.delta_aicc, rel=1e-9)
        assert (two.p_raw, two.p_corrected) == (one.p_raw, one.p_corrected)


def test_aicc_counts_sigma():
    """n ln(rss/n) + 2k + 2k(k+1)/(n-k-1) with k = 3 for a line: 10 ln(0.1) + 6 + 24/6."""
    assert aicc(1.0, 10, 2) == pytest.approx(10 * np.log(0.1) + 10, rel=1e-12)
    assert aicc(1.0, 4, 2) == np.inf


def test_noise_components_are_recovered():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(400), 5)
    residual = 0.3 * rng.standard_normal(400)[codes] + 0.1 * rng.standard_normal(2000)
    between, within = noise_components(residual, codes)
    assert between == pytest.approx(0.3, rel=0.1)
    assert within == pytest.approx(0.1, rel=0.1)
