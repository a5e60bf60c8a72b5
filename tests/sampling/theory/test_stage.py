"""The theory stage from tables alone: parts, best steps, and no torch."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from jstar.errors import JstarError
from jstar.sampling.steps import noise_steps
from jstar.sampling.theory.bound import bound
from jstar.sampling.theory.stage import write_theory

DIGITS = ROOT / "results" / "reference" / "digits-equal-images"
SIGMA = np.geomspace(0.05, 20, 40)
VARIANCE = 0.4


def gaussian(sigma):
    return VARIANCE * sigma**2 / (VARIANCE + sigma**2)


@pytest.fixture
def tables(tmp_path):
    """J* of a Gaussian, and two snapshots of a run: a gap of 1 and 0.01 times J*."""
    curve = pd.DataFrame({"sigma": SIGMA, "loss": gaussian(SIGMA), "stderr": 0.0})
    curve.assign(lower=curve["loss"], upper=curve["loss"]).to_csv(tmp_path / "c.csv", index=False)
    losses = pd.concat(
        [
            pd.DataFrame(
                {
                    "run": "r",
                    "params": 7,
                    "flops": flops,
                    "sigma": SIGMA,
                    "gap": g * gaussian(SIGMA),
                }
            )
            for flops, g in ((1.0, 1.0), (2.0, 0.01))
        ]
    )
    losses.to_csv(tmp_path / "l.csv", index=False)
    return tmp_path / "l.csv", tmp_path / "c.csv", tmp_path / "out"


def test_the_table_is_the_bound(tables):
    losses, curve, out = tables
    parts, _ = write_theory([losses], curve, out, dim=16, second_moment=0.5)
    row = parts[
        (parts["flops"] == 2) & (parts["sampler"] == "sde") & (parts["steps"] == 32)
        & (parts["spacing"] == "polynomial") & (parts["rho"] == 7)
    ].iloc[0]  # fmt: skip
    expected = bound(
        "sde", noise_steps("polynomial", 32, 0.05, 20.0), gaussian,
        lambda s: 0.01 * gaussian(s), dim=16, second_moment=0.5,
    )  # fmt: skip
    assert row["score"] == pytest.approx(expected.score, rel=1e-3)
    assert row["discretisation"] == pytest.approx(expected.discretisation, rel=5e-3)
    assert row["initial"] == pytest.approx(expected.initial, rel=5e-3)
    assert row["total"] == pytest.approx(row[["initial", "score", "discretisation"]].sum())
    assert set(parts["flops"]) == {2.0}  # the parts of the last snapshot, the best of all
    assert set(pd.read_csv(out / "steps.csv")["flops"]) == {1.0, 2.0}


def test_the_best_spacing_has_the_smallest_bound(tables):
    losses, curve, out = tables
    parts, chosen = write_theory([losses], curve, out, dim=16)
    for _, row in chosen[chosen["flops"] == 2].iterrows():
        group = parts[
            (parts["flops"] == row["flops"]) & (parts["sampler"] == row["sampler"])
            & (parts["steps"] == row["steps"])
        ]  # fmt: skip
        assert row["total"] == group["total"].min()
        assert min(row["edm"], row["exponential"]) >= row["total"]
    assert pd.read_csv(out / "steps.csv")["total"].to_list() == pytest.approx(
        chosen["total"].to_list(), rel=1e-8
    )


def test_the_crossover_is_where_both_bounds_are_equal(tmp_path):
    """On the digits: barely trained networks are on the polynomial side, the best is not."""
    parts, chosen = write_theory(
        [DIGITS / "losses.csv"], DIGITS / "curve.csv", tmp_path, second_moment=0.717
    )
    found = chosen[chosen["sampler"] == "sde"]
    early, late = (found[(found["snapshot"] == k) & (found["steps"] == 18)] for k in (0, 23))
    assert (early["exponential"] > early["edm"]).all()
    assert (early["rho"] < late.set_index(early.index)["rho"]).all()
    fine = found[(found["steps"] == 64) & (found["run"] == "d7-s0")].set_index("snapshot")
    assert fine.loc[0, "exponential"] > fine.loc[0, "edm"]  # the largest network crosses over
    assert fine.loc[23, "exponential"] < fine.loc[23, "edm"]
    row = late.iloc[-1]
    network = parts[
        (parts["run"] == row["run"]) & (parts["snapshot"] == 23) & (parts["steps"] == 18)
        & (parts["sampler"] == "sde")
    ]  # fmt: skip
    edm = network[network["rho"] == 7].iloc[0]
    exponential = network[network["spacing"] == "exponential"].iloc[0]
    factor = row["crossover"]
    assert 0 < factor < 1
    one, other = (x["discretisation"] + factor * x["score"] for x in (edm, exponential))
    assert one == pytest.approx(other)
    assert edm["discretisation"] > exponential["discretisation"]


def test_refusals(tables, tmp_path):
    losses, curve, out = tables
    with pytest.raises(JstarError, match="does not say the dimensions of an image, give --dim"):
        write_theory([losses], curve, out)
    frame = pd.read_csv(losses)
    frame.assign(gap=np.nan).to_csv(losses, index=False)
    with pytest.raises(JstarError, match=r"l.csv: the column 'gap' lacks values"):
        write_theory([losses], curve, out, dim=4)
    frame.drop(columns="gap").to_csv(losses, index=False)
    with pytest.raises(JstarError, match=r"l.csv: the column 'gap' is missing"):
        write_theory([losses], curve, out, dim=4)
    assert not out.exists()
