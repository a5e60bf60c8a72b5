"""The committed tables of the digits: fits and figures rerun from them without torch."""

import importlib.util
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from project import without_torch

from jstar.config import Study

HIGH = ("1.0", "1.45422", "2.11474", "3.07529", "4.47214", "6.50345", "9.45742", "total")

REFERENCE = ROOT / "results" / "reference" / "digits"
TABLES = ("--losses", REFERENCE / "losses.csv", "--optimal", REFERENCE / "curve.csv")
MIN_IMAGES = Study.load(ROOT / "config" / "digits.yaml").fit.min_images


@pytest.fixture(scope="module")
def refitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("fits")
    without_torch("fit", *TABLES, "--process", "edm", "--min-images", MIN_IMAGES, "--out", out)
    return out


def test_sizes_cross_as_the_study_says(refitted):
    """At sigma >= 1 at least half of the isoFLOP minima lie inside the ladder, but at 13.8, 20."""
    minima = pd.read_csv(refitted / "isoflop_minima.csv")
    inside = (minima["status"] == "inside").groupby(minima["sigma"]).mean()
    assert (inside[list(HIGH)] > 0.5).all()
    crossings = pd.read_csv(refitted / "verdicts.csv").set_index("sigma")["crossings"]
    assert (crossings[list(HIGH)] >= 3).all()


def test_equal_images_are_called_what_they_are():
    """The first default study: hardly a crossing, no envelope; only the joint law gives words."""
    verdicts = pd.read_csv(REFERENCE.with_name("digits-equal-images") / "verdicts.csv")
    assert (verdicts["crossings"] <= 1).all()
    words = verdicts.set_index("sigma")["verdict"]
    assert set(words) == {"undecided", "corrected", "above"}
    assert words["0.05"] == "above"
    assert words["9.45742"] == "corrected"
    approaches = pd.read_csv(REFERENCE.with_name("digits-equal-images") / "approaches.csv")
    envelope = approaches[approaches["approach"] == "envelope"]
    assert set(envelope["status"]) == {"no crossing"}


def test_the_fits_come_out_again(refitted):
    old, new = (pd.read_csv(folder / "fits.csv") for folder in (REFERENCE, refitted))
    assert list(old["sigma"]) == list(new["sigma"])
    chosen = old["law"] != "free"  # a free offset may lie on a ridge: any point of it is a fit
    np.testing.assert_allclose(new["alpha"][chosen], old["alpha"][chosen], rtol=1e-5)
    verdicts = [pd.read_csv(folder / "verdicts.csv")["verdict"] for folder in (REFERENCE, refitted)]
    assert list(verdicts[0]) == list(verdicts[1])


def program(name):
    """A module of benchmarks/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def test_the_results_page_is_what_the_tables_say():
    made = program("results_page")
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == made.page(), "run python benchmarks/results_page.py"
    for name in made.STUDIES:
        assert len(made.table(made.Tables.read(name)).splitlines()) == 4 + len(
            pd.read_csv(ROOT / "results" / "reference" / name / "verdicts.csv")
        )


def test_the_benchmarks_page_is_what_the_tables_say():
    made = program("benchmarks_page")
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == made.page(), "run python benchmarks/benchmarks_page.py"
    # A table's rows are counted and one of its numbers is looked up, past the page's own code.
    peers = pd.read_csv(made.TABLES / "optimal_peers.csv")
    part = page.split("optimal_peers.csv): ")[1].split("## ")[0]
    assert part.count("\n|") == 2 + len(peers)
    assert f"{peers['times_ours'].iloc[1]:.4g}" in part
    # Every committed table is on it, or lies behind one that is.
    behind = {"scaling_verdicts_studies", "scaling_verdicts_seeds", "train_width", "train_chunks",
              "tune_sweep"}  # fmt: skip
    committed = {path.stem for path in made.TABLES.glob("*.csv")}
    assert committed - set(made.SHOWN) <= behind


def test_a_figure_is_drawn_again(refitted, tmp_path):
    without_torch(
        "figures", "exponents", "--fits", refitted, "--optimal", REFERENCE / "curve.csv",
        "--out", tmp_path,
    )  # fmt: skip
    assert (tmp_path / "exponents.pdf").read_bytes().startswith(b"%PDF")


def test_the_theory_is_drawn_again(tmp_path):
    without_torch("sampling", "theory", *TABLES, "--out", tmp_path)
    assert (tmp_path / "theory.pdf").read_bytes().startswith(b"%PDF")


def test_the_tuning_page_has_the_numbers_of_the_table():
    table = pd.read_csv(ROOT / "results/reference/benchmarks/tune_transfer.csv")
    text = (ROOT / "docs/tune.md").read_text()
    for share, start in ((0.05, "| 5 %"), (0.1, "| 10 %"), (0.2, "| 20 %"), (0.4, "| **40 %")):
        mine = table[np.isclose(table["share"], share)]
        row = next(line for line in text.splitlines() if line.startswith(start))
        assert ", ".join(f"{rate:.3f}"[1:] for rate in mine["chosen_rate"]) in row
        assert ", ".join(f"{cost:.1f}" for cost in mine["regret_percent"]) in row
