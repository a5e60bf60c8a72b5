"""Tuning as the workflow sees it: before the runs, resumed after a kill, its rate all they need."""

import os
import signal
import time

import pytest
from project import (
    copy_project,
    images_seen,
    jobs,
    output,
    snakemake,
    start,
    write_study,
)

from jstar.records import read_json, write_json

RUN = "results/runs/tiny/d1-s0/run.json"
RATE = "results/tune/tiny/d1/rate.json"
TUNE = {"enabled": True, "factors": [0.5, 1.0, 2.0], "share": 0.3}
OFTEN = {"train": {"checkpoint_images": 640}}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project whose tiny study tunes one of its two sizes."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    ladder = [{"name": "d1", "depth": 1}, {"name": "d2", "depth": 2, "learning_rate": 0.003}]
    return folder, write_study(folder, tune=TUNE, ladder=ladder, **OFTEN)


def job(text, rule):
    """The lines of one rule in a dry run."""
    return text.split(f"rule {rule}:")[1].split("\n\n")[0]


def test_only_sizes_without_a_rate_are_tuned_and_only_their_runs_wait(project):
    folder, config = project
    text = snakemake(folder, "-n", "--configfile", config).stdout
    assert RATE in job(text, "train_d1")
    assert RATE not in job(text, "train_d2")
    assert "tune_d2" not in text
    assert "oracle.json" in job(text, "tune_d1")
    assert "tune.csv" in job(text, "fit")
    assert "tune.png" in job(text, "tune")
    plain = write_study(folder)
    assert not [rule for rule in jobs(folder, "--configfile", plain) if rule.startswith("tune")]
    ladder = [{"name": "d1", "depth": 1}, {"name": "d2", "depth": 2, "learning_rate": 0.003}]
    write_study(folder, tune=TUNE, ladder=ladder, **OFTEN)


def test_a_killed_tuning_goes_on_to_the_same_trials_and_a_kept_rate_retrains_nothing(project):
    folder, config = project
    place = ["--config", config, "--results", "undisturbed"]
    tune = ["jstar", "tune", *place, "--model", "d1", "--device", "cpu", "--threads", 1]
    for command in (["jstar", "prepare", *place], ["jstar", "oracle", *place], tune):
        assert start(folder, *command).wait(300) == 0, output(folder)

    state = folder / "results/state/tiny/tune/d1"
    command = ["snakemake", "--configfile", config, "--cores", 1, "--retries", 1, RUN]
    workflow, deadline = start(folder, *command), time.monotonic() + 120
    while not any(0 < images_seen(trial) < 5760 for trial in state.glob("*/state")):
        assert workflow.poll() is None, output(folder)
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(int((state / "lock").read_text()), signal.SIGKILL)
    assert workflow.wait(300) == 0, output(folder)
    assert output(folder).count("Trying to restart job") == 1
    for name in ("rate.json", "trials.csv"):
        mine, calm = (folder / r / "tune/tiny/d1" / name for r in ("results", "undisturbed"))
        assert mine.read_bytes() == calm.read_bytes()
    finished = {path.parent.name: path.read_bytes() for path in state.glob("*/telemetry.csv")}
    calm = folder / "undisturbed/state/tiny/tune/d1"
    assert finished == {path.parent.name: path.read_bytes() for path in calm.glob("*/tele*.csv")}

    rate = read_json(folder / RATE)
    trained = read_json(folder / RUN)["config"]["train"]
    assert trained["learning_rate"] == rate["learning_rate"]
    (folder / RATE).touch()
    assert jobs(folder, RUN, "--configfile", config) == {}
    (folder / "results/tune/tiny/d1/trials.csv").unlink()  # tuned again, to the same rate
    snakemake(folder, "results/tune/tiny/d1/trials.csv", "--configfile", config)
    assert jobs(folder, RUN, "--configfile", config) == {}
    write_json(folder / RATE, {"learning_rate": rate["learning_rate"] * 2})
    assert set(jobs(folder, RUN, "--configfile", config)) == {"train_d1", "total"}
