"""The committed tables of the default study: fits and figures rerun from them without torch."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from project import without_torch

REFERENCE = ROOT / "results" / "reference" / "digits"
TABLES = ("--losses", REFERENCE / "losses.csv", "--optimal", REFERENCE / "curve.csv")


@pytest.fixture(scope="module")
def refitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("fits")
    without_torch("fit", *TABLES, "--process", "edm", "--min-images", 16000, "--out", out)
    return out


def test_the_fits_come_out_again(refitted):
    old, new = (pd.read_csv(folder / "fits.csv") for folder in (REFERENCE, refitted))
    assert list(old["sigma"]) == list(new["sigma"])
    chosen = old["law"] != "free"  # a free offset may lie on a ridge: any point of it is a fit
    np.testing.assert_allclose(new["alpha"][chosen], old["alpha"][chosen], rtol=1e-5)
    verdicts = [pd.read_csv(folder / "verdicts.csv")["verdict"] for folder in (REFERENCE, refitted)]
    assert list(verdicts[0]) == list(verdicts[1])


def test_a_figure_is_drawn_again(refitted, tmp_path):
    without_torch(
        "figures", "exponents", "--fits", refitted, "--optimal", REFERENCE / "curve.csv",
        "--out", tmp_path,
    )  # fmt: skip
    assert (tmp_path / "exponents.pdf").read_bytes().startswith(b"%PDF")


def test_the_theory_is_drawn_again(tmp_path):
    without_torch("sampling", "theory", *TABLES, "--out", tmp_path)
    assert (tmp_path / "theory.pdf").read_bytes().startswith(b"%PDF")
