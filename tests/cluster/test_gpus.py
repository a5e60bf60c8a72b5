"""GPU slots: eight real processes share four (fake) devices, one is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from jstar.cluster.gpus import claim_gpus
from jstar.errors import JstarError

JOB = """
import os, sys, time
from pathlib import Path
from jstar.cluster.gpus import claim_gpus
with claim_gpus(1) as devices:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == devices[0]
    marker = Path(sys.argv[1]) / f"using-{devices[0]}"
    if marker.exists() and marker.read_text() != "killed":
        Path(sys.argv[1], "TWICE").write_text(devices[0])
    marker.write_text(str(os.getpid()))
    time.sleep(float(sys.argv[2]))
    marker.unlink()
Path(sys.argv[1], f"done-{sys.argv[3]}").write_text(devices[0])
"""


@pytest.fixture(autouse=True)
def locks(monkeypatch, tmp_path):
    monkeypatch.setenv("JSTAR_LOCKS", str(tmp_path / "locks"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def test_eight_jobs_share_four_slots_and_a_killed_job_frees_its_own(tmp_path):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}

    def start(name, seconds):
        return subprocess.Popen(
            [sys.executable, "-c", JOB, str(tmp_path), str(seconds), str(name)], env=env
        )

    victim = start("victim", 60)
    held = None
    deadline = time.monotonic() + 30
    while held is None and time.monotonic() < deadline:
        held = next((m for m in tmp_path.glob("using-*") if m.read_text()), None)
        time.sleep(0.05)
    assert held is not None
    jobs = [start(k, 0.5) for k in range(7)]
    held.write_text("killed")
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert [job.wait(60) for job in jobs] == [0] * 7
    assert not (tmp_path / "TWICE").exists()
    assert len(list(tmp_path.glob("done-*"))) == 7
    with claim_gpus(4, ["0", "1", "2", "3"]) as devices:  # none lost: all four can be had again
        assert devices == ["0", "1", "2", "3"]


def test_more_devices_than_the_machine_has_is_one_sentence():
    with pytest.raises(JstarError, match="train_gpus = 3.*2 GPU"), claim_gpus(3, ["0", "1"]):
        pass


def test_each_slurm_job_shares_out_its_own_devices(monkeypatch, tmp_path):
    monkeypatch.delenv("JSTAR_LOCKS")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExitStack() as held:
        for job in ("7", "8"):  # each has a device that it calls 0
            monkeypatch.setenv("SLURM_JOB_ID", job)
            assert held.enter_context(claim_gpus(1, ["0", "1"])) == ["0"]
        assert held.enter_context(claim_gpus(1, ["0", "1"])) == ["1"]  # a second run in job 8
