"""Shards of the optimal loss in the workflow: the same curve, and only a lost one comes back."""

import pandas as pd
import pytest
from project import copy_project, snakemake, write_study

CURVE = "results/optimal/digits/curve.csv"


@pytest.fixture
def project(tmp_path):
    """A copy of the project with `run(shards)`, which makes the curve of the tiny study."""
    folder = copy_project(tmp_path)
    dataset = {"name": "digits", "source": "digits", "limit": None, "mirror": True}  # several tiles

    def run(shards):
        config = write_study(folder, dataset=dataset, optimal={"shards": shards})
        done = snakemake(folder, CURVE, "--configfile", config)
        return done.stdout + done.stderr

    return folder, run


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
