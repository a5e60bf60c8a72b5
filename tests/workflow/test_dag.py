"""The DAG: a tiny study end to end, what reruns what, and what stops before any job starts."""

import re
import shutil

import pandas as pd
import pytest
import yaml
from project import TINY, copy_project, jobs, snakemake, write_study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny study with cooldowns, run to its report."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    write_study(folder, train={"cooldown": {"snapshots": 2}})
    snakemake(folder, "--configfile", "config/tiny.yaml")
    return folder


def dry_run(folder):
    return sorted({*jobs(folder, "--configfile", "config/tiny.yaml")} - {"total", "all"})


def test_the_tiny_study_makes_everything(finished):
    study = finished / "results/studies/tiny"
    for name in ("optimal_loss", "scaling", "exponents", "gap"):
        assert (study / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (study / f"figures/{name}.png").stat().st_size > 10_000
    page = (study / "report.html").read_text()
    assert 1e6 < len(page) < 8e6
    assert "images sha256" in page  # the card, and what the runs cost
    assert "3 runs" in page
    assert re.search(r"verified</th><td>\d+ files: \d+ intact</td>", page)
    assert page.count("<img") >= len(list((study / "figures").glob("*.png")))
    assert "<html" in (study / "notebooks/inspect_fits.html").read_text()[:500]
    losses = pd.read_csv(study / "losses.csv")
    assert set(losses["run"]) == {"d1-s0", "d1-s1", "d2-s0"}
    assert (losses["gap"] >= 0).all()
    assert losses.groupby("run")["snapshot"].nunique().eq(6).all()
    assert losses[losses["ema"] == 0].groupby("run")["snapshot"].nunique().eq(2).all()
    assert len(pd.read_csv(study / "cooldown.csv")) == 2 * 2 * (6 + 1)  # sizes, ends, noise scales


def test_only_a_study_with_cooldowns_has_their_figure(finished):
    shutil.copy(TINY, finished / "config/plain.yaml")
    plain = snakemake(finished, "-n", "-F", "--configfile", "config/plain.yaml").stdout
    assert "figures/gap.png" in plain
    assert "figures/cooldown.png" not in plain
    assert (finished / "results/studies/tiny/figures/cooldown.pdf").is_file()


def test_a_second_run_has_nothing_to_do(finished):
    assert dry_run(finished) == []


COSMETIC = {
    "src/jstar/train/__init__.py": "\n# a comment\n",
    "src/jstar/optimal/__init__.py": "\n# a comment\n",
    "src/jstar/figures/style.py": "\nCOLUMN = 3.4\n",
    "workflow/report/gap.rst": "\nAnother sentence.\n",
    "workflow/rules/train.smk": "\n# a comment\n",
}


def test_cosmetic_edits_rerun_nothing(finished):
    before = {path: (finished / path).read_text() for path in COSMETIC}
    try:
        for path, comment in COSMETIC.items():
            (finished / path).write_text(before[path] + comment)
        assert dry_run(finished) == []
    finally:
        for path, text in before.items():
            (finished / path).write_text(text)


def test_keys_that_change_no_number_rerun_no_science(finished):
    path = finished / "config/tiny.yaml"
    before = path.read_text()
    try:
        tree = yaml.safe_load(before)
        tree["train"]["checkpoint_seconds"] = 33
        tree["resources"] = {"train_threads": 2, "train_minutes": 5}
        path.write_text(yaml.safe_dump(tree))
        assert dry_run(finished) == []
    finally:
        path.write_text(before)


def test_a_deleted_figure_comes_back_and_a_broken_caption_fails_the_report(finished):
    path, page = finished / "workflow/report/gap.rst", "results/studies/tiny/snakemake-report.html"
    figure = finished / "results/studies/tiny/figures/gap.png"
    before = path.read_text()
    command = ("--configfile", "config/tiny.yaml")
    figure.unlink()
    assert dry_run(finished) == ["figures", "report", "verify"]
    try:
        path.write_text(before + "- a list\n  without its blank line\n")
        done = snakemake(finished, "snakemake_report", *command, check=False)
    finally:
        path.write_text(before)
    assert done.returncode != 0
    assert "docutils complains about the caption of results/studies/tiny/figures/gap.png" in (
        done.stdout + done.stderr
    )
    assert figure.exists()
    assert not (finished / page).exists()
    snakemake(finished, "snakemake_report", *command)
    text = (finished / page).read_text()
    assert "Loss gap E|D" in text  # captions are inside, with their numbers
    assert "end of a cooldown" in text
    assert dry_run(finished) == []  # the figure came back, to the byte


def test_a_learning_rate_retrains_but_keeps_the_optimal_loss(finished):
    path = finished / "config/tiny.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("learning_rate: 0.003", "learning_rate: 0.002"))
        rules = set(dry_run(finished))
        assert {"train_d1", "train_d2"} <= rules
        assert not {"prepare", "optimal", "oracle"} & rules
    finally:
        path.write_text(before)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A copy of the project in which nothing has run."""
    return copy_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sigmaz", {"min": 1}, ["'sigmaz'", "unknown", "'sigmas'"]),
        ("ladder", [{"name": "d1", "depth": -1}], ["ladder[0].depth = -1"]),
        ("sigmas", {"min": 5, "max": 0.1}, ["sigmas", "min = 5", "max = 0.1"]),
        ("dataset", {"name": "x", "source": "npz", "path": "none.npz"}, ["'none.npz'", "no such"]),
        ("train", {"images": 9000, "batch": 5000}, ["train.batch = 5000", "256"]),
    ],
)
def test_a_wrong_study_stops_before_any_job(fresh, key, value, words):
    tree = yaml.safe_load(TINY.read_text())
    tree[key] = {**tree["train"], **value} if key == "train" else value
    (fresh / "config/wrong.yaml").write_text(yaml.safe_dump(tree))
    done = snakemake(fresh, "--configfile", "config/wrong.yaml", check=False)
    assert done.returncode != 0
    sentences = [line for line in done.stderr.splitlines() if line.startswith("jstar:")]
    assert len(sentences) == 1, done.stderr
    for word in ["config/wrong.yaml", *words]:
        assert word in sentences[0]
    assert "Traceback" not in done.stderr
    assert not (fresh / "results").exists()
