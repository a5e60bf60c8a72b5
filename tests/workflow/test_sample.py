"""The target `sample`: off by default, there for any study, part of all where asked for."""

import subprocess
import sys

import pandas as pd
import pytest
from project import copy_project, environment, write_study

SAMPLE = {"count": 64, "steps": 4, "snapshots": 2}
LADDER = [{"name": "d1", "depth": 1, "seeds": [0, 1]}]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("project"))


def snakemake(folder, config, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--configfile", config],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    logs = "".join(p.read_text() for p in folder.glob("results/**/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return done.stdout


def test_no_study_is_slower_unless_it_asks(project):
    plain = snakemake(project, write_study(project, sample=SAMPLE), "-n")
    assert "sample_run" not in plain
    asked = snakemake(project, write_study(project, sample={**SAMPLE, "enabled": True}), "-n")
    assert "sample_run" in asked
    assert "theory" in asked


def test_the_target_makes_images_quality_and_theory(project):
    config = write_study(project, sample=SAMPLE, ladder=LADDER)
    snakemake(project, config, "sample")
    out = project / "results/studies/tiny/sampling"
    for name in ("samples", "gap_quality", "theory"):
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    quality = pd.read_csv(out / "quality.csv")
    assert len(quality) == 4
    assert quality["fid"].notna().all()
    assert set(pd.read_csv(out / "schedules.csv")["run"]) == {"d1-s0", "d1-s1"}
    assert set(pd.read_csv(out / "correlation.csv")["of"]) == {"loss", "gap"}
    assert "Nothing to be done" in snakemake(project, config, "-n", "sample")
