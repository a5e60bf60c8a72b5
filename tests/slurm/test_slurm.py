"""Studies on a real SLURM: killed, preempted, out of time and spread over nodes, same numbers."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import project as project_module
import pytest
import torch
import yaml
from cluster import Cluster, UnavailableError
from project import (
    copy_project,
    images_seen,
    output,
    start,
    train_undisturbed,
    trained,
    write_study,
)

pytestmark = pytest.mark.slurm
CHECKPOINT_IMAGES = 6400


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two CPUs and two fake GPUs each."""
    if torch.cuda.is_available():
        pytest.skip("the fake GPUs of the test cluster would be taken for this machine's own")
    cluster = Cluster()
    try:
        cluster.start()
    except UnavailableError as error:
        pytest.skip(f"no SLURM here: {error}")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy whose profile polls faster, and warns 20 s before a time limit, not 120."""
    # Jobs start as users' do: SLURM's signals do not reach what a process of the tests forks.
    project_module.warmed = lambda: Path(sys.executable).parent
    folder = copy_project(tmp_path_factory.mktemp("project"))
    profile = folder / "profiles/slurm/config.yaml"
    text = profile.read_text()
    for before, after in [
        ("USR1@120", "USR1@20"), ("status-checks: 20", "status-checks: 3"),
        ("latency-wait: 60", "latency-wait: 5"),
    ]:  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    profile.write_text(text)
    yield folder
    for process in Path("/proc").glob("[0-9]*"):  # without cgroups SLURM loses some of a dead job
        with suppress(OSError):
            if process.joinpath("cwd").readlink().is_relative_to(folder):
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
def workflow(cluster, project):
    """`workflow(config, *targets)`: a running study, ended with the test."""
    started = []

    def begin(config, *targets):
        started.append(Workflow(project, config, *targets))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


class Workflow:
    """A running `snakemake --profile profiles/slurm`, and the SLURM jobs of its training rules."""

    def __init__(self, folder, config, *targets):
        self.folder, self.config = folder, config
        self.study = yaml.safe_load(config.read_text())["study"]
        self.others = {job for job, _ in listed_jobs()}  # those of studies before
        command = ["snakemake", *targets, "--profile", "profiles/slurm", "--configfile", config]
        self.process = start(folder, *command)

    def state(self, run):
        return self.folder / "results/state" / self.study / run

    def jobs(self, run):
        """Ids of the SLURM jobs that have trained `run`, oldest first."""
        model, seed = run.split("-s")
        comment = f"rule_train_{model}_wildcards_{seed}"
        ids = {job for job, about in listed_jobs() if about == comment}
        return sorted(ids - self.others, key=int)

    def wait_until_training(self, run, images):
        """Until the run is past so many images; some must be left to be done."""
        self.wait_until(lambda: images_seen(self.state(run)) > images)

    def wait_until(self, is_so):
        """Until `is_so()`, while Snakemake runs."""
        deadline = time.monotonic() + 900
        while not is_so():
            assert self.process.poll() is None, output(self.folder)
            assert time.monotonic() < deadline, output(self.folder)
            time.sleep(0.05)

    def finish(self, seconds):
        assert self.process.wait(seconds) == 0, output(self.folder)


def slurm(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def listed_jobs():
    """Id and comment of every job that SLURM remembers."""
    rows = slurm("squeue", "-h", "--states=all", "-o", "%i %k").splitlines()
    return [(job, about) for job, _, about in (row.partition(" ") for row in rows)]


def restarts(job):
    return int(re.search(r"Restarts=(\d+)", slurm("scontrol", "show", "job", job)).group(1))


def test_a_study_completes_though_its_training_is_warned_killed_and_preempted(workflow, project):
    config = write_study(
        project,
        train={"images": 320000, "checkpoint_images": CHECKPOINT_IMAGES},
        resources={"optimal_threads": 2},
    )
    runs = [("d1", 0), ("d1", 1), ("d2", 0)]
    calm = train_undisturbed(project, config, *runs)

    study = workflow(config)
    study.wait_until_training("d1-s0", 2 * CHECKPOINT_IMAGES)
    # An edit of the study reaches no job of a run in progress, not even one that starts again.
    config.write_text(config.read_text().replace("learning_rate: 0.003", "learning_rate: 0.1"))
    warned = study.jobs("d1-s0")[-1]
    slurm("scancel", "--signal=USR1", warned)  # as at the time limit: to the steps
    study.wait_until_training("d1-s1", 2 * CHECKPOINT_IMAGES)
    preempted = study.jobs("d1-s1")[-1]
    node = slurm("squeue", "-h", "-j", preempted, "-o", "%N").strip()
    slurm("sbatch", "-p", "urgent", "-w", node, "--exclusive", "-t1", "-o/dev/null",
          "--wrap", "sleep 1")  # fmt: skip
    study.wait_until_training("d2-s0", 2 * CHECKPOINT_IMAGES)
    killed = study.jobs("d2-s0")[-1]
    slurm("scancel", "--signal=KILL", killed)
    study.finish(1500)

    for model, seed in runs:
        run = f"{model}-s{seed}"
        assert trained(project / "results/runs/tiny" / run) == trained(calm / run)
    assert restarts(warned) >= 1
    assert restarts(preempted) >= 1
    assert output(project).count("Trying to restart job") == 1
    assert study.jobs("d2-s0")[:-1] == [killed]
    assert (project / "results/studies/tiny/report.html").stat().st_size > 200_000


def test_a_run_longer_than_its_time_limit_goes_on_in_the_next_slice(workflow, project):
    config = write_study(
        project,
        study="slices",
        # It is warned after 40 seconds, in which the fastest machine seen trains 2.2 million.
        train={"images": 64 * 56000, "checkpoint_seconds": 1000},
        resources={"train_minutes": 1},
    )
    study = workflow(config, "results/runs/slices/d2-s0/run.json")
    study.finish(1500)
    (job,) = study.jobs("d2-s0")  # Snakemake has submitted one
    assert restarts(job) >= 1
    assert "TimeLimit=00:01:00" in slurm("scontrol", "show", "job", job)


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 2), (2, 1)])
def test_several_gpus_and_nodes_have_the_losses_of_one(workflow, project, nodes, gpus):
    """One task a node; torchrun starts a worker for each (fake) GPU."""
    name = f"nodes{nodes}"
    train = {"images": 51200}
    config = write_study(
        project, study=name, train=train,
        resources={"train_gpus": gpus, "train_nodes": nodes, "train_threads": 2},
    )  # fmt: skip
    study = workflow(config, f"results/runs/{name}/d2-s0/run.json")
    study.wait_until_training("d2-s0", 1280)
    job = study.jobs("d2-s0")[-1]
    about = slurm("scontrol", "show", "job", job)
    assert f"NumNodes={nodes} " in about
    assert ("TresPerJob=gres:gpu:2" if nodes == 1 else "TresPerNode=gres:gpu:1") in about
    slurm("scancel", "--signal=USR1", job)
    study.finish(1500)
    assert restarts(job) == 1
    one = train_undisturbed(project, write_study(project, train=train), ("d2", 0)) / "d2-s0"
    expected, found = (
        pd.read_csv(run / "telemetry.csv") for run in (one, project / f"results/runs/{name}/d2-s0")
    )
    assert np.array_equal(expected["count"], found["count"])
    np.testing.assert_allclose(expected["loss"], found["loss"], rtol=1e-3)
    total = [(t["weighted"] * t["count"]).groupby(t["images"]).sum() for t in (expected, found)]
    np.testing.assert_allclose(*total, rtol=1e-5)
