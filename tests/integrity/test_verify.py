"""`jstar verify`: every damage of a study is found and what to run again is said."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT
from damages import cut, flip, rewrite, zeros

from jstar.figures.notebook import run_notebook
from jstar.records import read_json
from jstar.report.page import write_study_report
from jstar.verify import BAD, UNRECORDED, verify_folder, verify_study

DAMAGES = {"a bit": flip, "cut": cut, "zeros": zeros, "removed": lambda path: path.unlink()}


def figures_of_the_study(place):
    """The one figure that was drawn; the others are missing, and rightly said to be."""
    return {place.layout.figures / "optimal_loss.json"}


def bad(place):
    """Path -> finding, of what is wrong but for the figures that nobody drew."""
    found = {one.path: one for one in verify_study(place.layout) if one.state in BAD}
    drawn = figures_of_the_study(place)
    return {
        path: one for path, one in found.items()
        if path.parent != place.layout.figures or path in drawn or path.suffix != ".json"
    }  # fmt: skip


def recorded(place):
    """All files that a record stands for, and the records."""
    found = verify_study(place.layout)
    return sorted(one.path for one in found if one.state == "intact")


def record_of(path):
    """The record that stands for a file."""
    known = {".npy": "card.json", ".safetensors": "../run.json", ".md": "../fits.json",
             ".tex": "../fits.json"}  # fmt: skip
    if path.parent.name == "oracle":
        known[".npy"] = "oracle.json"
    name = known.get(path.suffix, f"{path.stem}.json")
    return (path.parent / name).resolve()


def test_a_whole_study_is_intact(copied):
    assert bad(copied) == {}
    names = {path.name for path in recorded(copied)}
    assert {"images.npy", "holdout_labels.npy", "curve.csv", "posterior_mean.npy", "run.json",
            "002.safetensors", "telemetry.csv", "losses.csv", "fits.csv", "laws.md",
            "optimal_loss.png"} <= names  # fmt: skip
    assert len(recorded(copied)) > 80


@pytest.mark.parametrize("seed", range(4))
def test_ten_random_damages_are_ten_findings(copied, seed):
    draw, chosen, held = np.random.default_rng(seed), [], set()
    files = recorded(copied)
    for path in (files[k] for k in draw.permutation(len(files))):
        # Of what a broken record stands for nothing is known: not both.
        family = record_of(path)
        if len(chosen) < 10 and (family not in held if path.suffix == ".json" else
                                 family not in chosen):  # fmt: skip
            chosen.append(path)
            held.add(family)
    for path in chosen:
        hows = [how for how in DAMAGES if how != "removed" or path.suffix != ".json"]
        DAMAGES[draw.choice(hows)](path)
    found = bad(copied)
    assert len(chosen) == 10
    assert set(found) == set(chosen)
    assert all(one.remake.startswith("jstar ") for one in found.values())


def test_stale_foreign_and_missing_are_told_apart(copied, other):
    layout = copied.layout
    for ending in ("csv", "json"):
        rewrite(layout.curve.with_suffix(f".{ending}"),
                other.layout.curve.with_suffix(f".{ending}").read_bytes())  # fmt: skip
        rewrite(layout.losses("d1", 1).with_suffix(f".{ending}"),
                layout.losses("d2", 0).with_suffix(f".{ending}").read_bytes())  # fmt: skip
    shutil.rmtree(layout.run("d2", 0))
    found = bad(copied)
    state = {path.relative_to(copied.folder / "results").as_posix(): one.state
             for path, one in found.items()}  # fmt: skip
    assert state["optimal/digits/curve.json"] == "foreign"
    assert state["runs/tiny/d1-s1/losses.json"] == "foreign"
    assert state["runs/tiny/d2-s0/run.json"] == state["runs/tiny/d2-s0/losses.json"] == "missing"
    assert state["studies/tiny/fits.json"] == "stale"
    assert "another one since" in found[layout.fits / "fits.json"].says
    assert found[layout.losses("d1", 1).with_suffix(".json")].remake == (
        "jstar evaluate --model d1 --seed 1"
    )


def test_a_run_that_the_study_does_not_say_any_more_is_stale(copied):
    study = copied.folder / "study.yaml"
    study.write_text(study.read_text().replace("learning_rate: 0.003", "learning_rate: 0.002"))
    states = {one.state for path, one in bad(copied).items() if path.name == "run.json"}
    assert states == {"stale"}


def test_the_command_says_it_in_lines_a_status_and_a_file(copied, jstar):
    out = copied.folder / "found.json"
    flip(copied.layout.curve)
    status, text, err = jstar("verify", *copied.options(), "--out", out)
    assert (status, err) == (1, "")
    assert f"{copied.layout.curve}: damaged" in text
    assert "run 'jstar optimal' again" in text
    assert " 1 damaged" in text.splitlines()[-1]
    facts = read_json(out)
    assert facts["summary"] == text.splitlines()[-1]
    assert facts["bad"] == len([one for one in facts["files"] if one["state"] in BAD])
    status, _, err = jstar("verify")
    assert (status, err.count("\n")) == (2, 1)


def test_results_of_an_older_jstar_are_counted_not_refused(copied, jstar):
    for record in (copied.folder / "results").rglob("*.json"):
        facts = json.loads(record.read_text())
        for name in ("made", "seal", "parents", "holdout_sha256"):
            facts.pop(name, None)
        record.write_text(json.dumps(facts))
    assert bad(copied) == {}
    states = [one.state for one in verify_study(copied.layout)]
    assert states.count(UNRECORDED) > 20
    assert jstar("fit", *copied.options())[0] == 0


def test_the_committed_references_are_intact_and_a_digit_is_not(tmp_path, jstar):
    folder = shutil.copytree(ROOT / "results/reference", tmp_path / "reference")
    status, text, _ = jstar("verify", folder)
    assert status == 0, text
    tables = sorted(folder.rglob("*.csv"))
    known = {one.path for one in verify_folder(folder) if one.state == "intact"}
    assert {t for t in tables if t.with_suffix(".json").is_file()} <= known
    for table in [t for t in tables if t in known][::12]:
        flip(table)
        status, text, _ = jstar("verify", folder)
        assert (status, text.count("damaged (")) == (1, 1)
        assert f"{table}: damaged" in text
        shutil.copy(ROOT / "results/reference" / table.relative_to(folder), table)


def test_the_page_has_a_record_and_the_verification_before_it_leaves_it_out(copied, jstar):
    layout = copied.layout
    assert layout.report not in {one.path for one in verify_study(layout)}  # none was made
    write_study_report(layout)
    assert layout.report in set(recorded(copied))
    flip(layout.curve.with_suffix(".csv"))
    state = {one.path: one for one in verify_study(layout)}
    assert state[layout.report].state == "intact"  # the curve is what is damaged
    flip(layout.report)
    (page,) = (one for one in verify_study(layout) if one.path == layout.report)
    assert (page.state, page.remake) == ("damaged", "jstar report")
    jstar("verify", *copied.options(), "--out", copied.folder / "found.json")
    found = {one["path"] for one in read_json(copied.folder / "found.json")["files"]}
    assert not {str(layout.report), str(layout.report.with_suffix(".json"))} & found


def test_a_page_of_fits_that_were_made_anew_is_stale(copied, jstar):
    layout, study = copied.layout, copied.folder / "study.yaml"
    write_study_report(layout)
    run_notebook(ROOT / "notebooks/inspect_fits.ipynb", layout.notebooks / "inspect_fits.html",
                 {"study_file": str(study), "results": str(copied.folder / "results")},
                 [layout.fits / "fits.json"])  # fmt: skip
    study.write_text(study.read_text().replace("bootstrap: 100", "bootstrap: 101"))
    assert jstar("fit", *copied.options())[0] == 0
    found = bad(copied)
    for path in (layout.report, layout.notebooks / "inspect_fits.html"):
        record = path.with_suffix(".json")
        assert found[record].state == "stale"
        assert "fits.json is another one since" in found[record].says
