"""Every path comes from `Layout`, and the sampling is part of all only where it is asked for."""

import re

import pandas as pd
import pytest
from conftest import ROOT
from project import copy_project, jobs, snakemake, write_study

SAMPLING = {"count": 64, "steps": 4, "snapshots": 2}
FOLLOWS = {"process": "edm", "noise": {"law": "optimal_loss"}}
LADDER = [{"name": "own", "depth": 1}, {"name": "new", "depth": 1, "variant": FOLLOWS}]


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A project whose Layout has other names for all folders: studies is moved-studies."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    top = folder / "src/jstar/constants.py"
    top.write_text(top.read_text().replace('Path("results")', 'Path("moved")'))
    code = folder / "src/jstar/layout.py"
    text, count = re.subn(r'/ "([\w-]+)"', r'/ "moved-\1"', code.read_text())
    assert count >= 10
    code.write_text(text)
    return folder


def test_no_rule_spells_a_folder_of_results():
    files = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    assert len(files) > 9
    for path in files:
        assert not re.search("results/|[{]study[}]|[{]dataset[}]", path.read_text()), path


def test_no_study_is_slower_unless_it_asks(moved):
    plain = write_study(moved, sampling=SAMPLING)
    assert "sampling_draw" not in jobs(moved, "--configfile", plain)
    assert jobs(moved, "sampling", "--configfile", plain)["sampling_draw"] == 3
    asked = write_study(moved, sampling={**SAMPLING, "enabled": True})
    assert {"sampling_draw", "sampling_theory", "fit"} <= {*jobs(moved, "--configfile", asked)}


def test_a_folder_renamed_in_layout_is_renamed_everywhere(moved):
    """A whole study with samples, of two noise laws: every command writes what its rule expects."""
    sampling = {**SAMPLING, "enabled": True}
    config = write_study(moved, kind="variants", ladder=LADDER, sampling=sampling)
    snakemake(moved, "--configfile", config)
    assert jobs(moved, "--configfile", config) == {}
    assert not (moved / "results").exists()
    assert {path.name.split("-")[0] for path in (moved / "moved").iterdir()} == {"moved"}
    study = moved / "moved/moved-studies/tiny"
    assert (study / "moved-variants/moved-noise-laws/effect.md").is_file()
    assert (study / "moved-figures/variants.pdf").read_bytes().startswith(b"%PDF")
    out = study / "moved-sampling"
    for name in ("samples", "gap_quality", "theory"):
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    quality = pd.read_csv(out / "quality.csv")
    assert len(quality) == 4
    assert quality["fid"].notna().all()
    assert set(pd.read_csv(out / "steps.csv")["run"]) == {"own-s0", "new-s0"}
    assert set(pd.read_csv(out / "correlation.csv")["of"]) == {"loss", "gap"}
