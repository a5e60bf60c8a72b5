"""Training by the optimal-loss noise law, as the workflow sees it."""

import subprocess
import sys

from project import copy_project, environment, write_study


def dry_run(folder):
    """What Snakemake says it would do for the tiny study."""
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "config/tiny.yaml"]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def job(text, rule):
    """The lines of one rule in a dry run."""
    return text.split(f"rule {rule}:")[1].split("\n\n")[0]


def test_only_runs_with_the_law_wait_for_the_optimal_loss(tmp_path):
    folder = copy_project(tmp_path / "project")
    variant = {"process": "edm", "noise": {"law": "optimal_loss"}}
    ladder = [{"name": "own", "depth": 1}, {"name": "new", "depth": 1, "variant": variant}]
    write_study(folder, kind="diagnosis", ladder=ladder)
    text = dry_run(folder)
    assert "curve.csv" in job(text, "train_new")
    assert "noise_law.csv" in job(text, "train_new")
    assert "curve.csv" not in job(text, "train_own")
    assert "noise_law.csv" not in job(text, "train_own")
    assert "runs/tiny/new-s0/noise_law.csv" in job(text, "noise")
    write_study(folder, kind="diagnosis", ladder=ladder[:1])
    assert "rule noise" not in dry_run(folder)
