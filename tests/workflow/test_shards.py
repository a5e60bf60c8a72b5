"""Shards of the optimal loss in the workflow: the same curve, and only a lost one comes back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT

CURVE = "results/optimal/digits/curve.csv"


@pytest.fixture
def project(tmp_path):
    """A copy of the workflow with `run(shards, ...)`, which makes the curve of the tiny study."""
    for name in ("Snakefile", "workflow", "profiles", "envs", "src"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    tree = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    tree["dataset"] = {"name": "digits", "source": "digits", "mirror": True}  # several tiles
    env = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(shards):
        tree["optimal"]["shards"] = shards
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", CURVE, "--cores", "2", "--configfile",
             "tiny.yaml"],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return tmp_path, run


def test_shards_give_the_same_curve_and_a_lost_one_comes_back_alone(project):
    folder, run = project
    run(1)
    whole = pd.read_csv(folder / CURVE)
    (folder / CURVE).unlink()
    text = run(3)
    assert text.count("jstar optimal --config") == 3
    shared = pd.read_csv(folder / CURVE)
    for name in ("sigma", "loss", "stderr", "lower", "upper"):
        assert shared[name].to_numpy() == pytest.approx(whole[name].to_numpy(), rel=1e-9)
    shards = folder / "results/optimal/digits/shards"
    assert len(list(shards.glob("*.npz"))) == 3
    before = (folder / CURVE).read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("[13]-of-3.npz")}
    (shards / "2-of-3.npz").unlink()
    (folder / CURVE).unlink()
    text = run(3)
    assert text.count("jstar optimal --config") == 1
    assert "--shard 2/3" in text
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (folder / CURVE).read_bytes() == before
