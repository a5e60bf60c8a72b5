"""The committed tables of the default study: fits and figures rerun from them without torch."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

REFERENCE = ROOT / "results" / "reference" / "digits"
TABLES = ("--losses", REFERENCE / "losses.csv", "--optimal", REFERENCE / "curve.csv")

WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch was imported")
sys.meta_path.insert(0, NoTorch())
from jstar.cli import main
sys.argv = ["jstar", *sys.argv[1:]]
main()
"""


def jstar(*arguments):
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def refitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("fits")
    jstar("fit", *TABLES, "--process", "edm", "--min-images", 16000, "--out", out)
    return out


def test_the_fits_come_out_again(refitted):
    old, new = (pd.read_csv(folder / "fits.csv") for folder in (REFERENCE, refitted))
    assert list(old["sigma"]) == list(new["sigma"])
    chosen = old["law"] != "free"  # a free offset may lie on a ridge: any point of it is a fit
    np.testing.assert_allclose(new["alpha"][chosen], old["alpha"][chosen], rtol=1e-5)
    verdicts = [pd.read_csv(folder / "verdicts.csv")["verdict"] for folder in (REFERENCE, refitted)]
    assert list(verdicts[0]) == list(verdicts[1])


def test_a_figure_is_drawn_again(refitted, tmp_path):
    jstar(
        "figures", "exponents", "--fits", refitted, "--optimal", REFERENCE / "curve.csv",
        "--out", tmp_path,
    )  # fmt: skip
    assert (tmp_path / "exponents.pdf").read_bytes().startswith(b"%PDF")


def test_the_theory_is_drawn_again(tmp_path):
    jstar("theory", *TABLES, "--out", tmp_path)
    assert (tmp_path / "theory.pdf").read_bytes().startswith(b"%PDF")
