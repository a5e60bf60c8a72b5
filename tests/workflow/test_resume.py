"""Without a cluster: a training job that is killed mid-run is repeated and resumes by itself."""

import os
import signal
import time

from project import (
    copy_project,
    images_seen,
    output,
    start,
    train_undisturbed,
    trained,
    write_study,
)

IMAGES, KILLED_AFTER = 64000, 12800
RUN_JSON = "results/runs/tiny/d1-s0/run.json"


def test_a_killed_training_job_is_repeated_and_goes_on_to_the_same_weights(tmp_path):
    folder = copy_project(tmp_path / "project")
    config = write_study(folder, train={"images": IMAGES, "checkpoint_images": 1280})
    calm = train_undisturbed(folder, config, ("d1", 0))
    state = folder / "results/state/tiny/d1-s0"

    command = ["snakemake", "--configfile", config, "--cores", 1, "--retries", 1, RUN_JSON]
    workflow, deadline = start(folder, *command), time.monotonic() + 50
    while not KILLED_AFTER < images_seen(state) < IMAGES:
        assert workflow.poll() is None, output(folder)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(int((state / "lock").read_text()), signal.SIGKILL)
    while workflow.poll() is None:
        assert images_seen(state) > KILLED_AFTER - 1280  # it resumes, it does not begin anew
        time.sleep(0.01)
    assert workflow.returncode == 0, output(folder)
    assert output(folder).count("Trying to restart job") == 1
    assert trained(folder / RUN_JSON.removesuffix("/run.json")) == trained(calm / "d1-s0")
