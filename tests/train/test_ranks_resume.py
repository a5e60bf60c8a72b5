"""Several processes killed and resumed equal several that were not, to the last bit.

A chunk is one step and a record four, so that checkpoints fall within a record.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from jstar.train.checkpoint import load_newest
from jstar.train.parallel import Ranks
from jstar.train.run import CHECKPOINTS

STEPS, RECORDS = 40, 10
KILLED = (17, 27)


def work(config, data, folder, killed):
    """Train as one of several; with `killed` SIGKILL after the checkpoint of that step."""
    import signal

    from jstar.config import Study
    from jstar.train import events, train
    from jstar.train.run import Run

    events.CHUNK_STEPS, events.RECORDS = 1, RECORDS
    save = Run.save

    def save_and_die(self):
        save(self)
        if self.step == killed:
            self.wait_for_saves()
            os.kill(os.getpid(), signal.SIGKILL)

    Run.save = save_and_die
    root = Path(folder)
    train(Study.parse(yaml.safe_load(config)), "d2", 0, Path(data), root / "out", root / "state",
          curve=Path(data) / "none.csv", device="cpu", threads=1)  # fmt: skip


def launch(study, data, folder, processes, killed=0):
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    more = [__file__, yaml.safe_dump(study), str(data), str(folder), str(killed)]
    done = subprocess.run(
        [sys.executable, *torchrun, *more], capture_output=True, text=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode == 0) == (not killed), done.stderr[-3000:]


@pytest.mark.parametrize(
    ("processes", "options"),
    [(2, {"parallel": "fsdp"}), (3, {"parallel": "ddp", "batch": 66, "microbatch": 12})],
    ids=["fsdp", "ddp"],
)
def test_killed_and_resumed_several_are_bitwise_equal(
    processes, options, tiny_study, digits, tmp_path, contents
):
    batch = options.get("batch", 64)
    keys = {"images": STEPS * batch, "batch": batch, "checkpoint_images": 1, **options}
    study = tiny_study(train=keys)
    launch(study, digits, tmp_path / "calm", processes)
    for step in KILLED:
        launch(study, digits, tmp_path / "stormy", processes, step)
    launch(study, digits, tmp_path / "stormy", processes)
    assert contents(tmp_path / "calm") == contents(tmp_path / "stormy")
    calm, stormy = (state(tmp_path / name) for name in ("calm", "stormy"))
    assert [name for name in calm if calm[name] != stormy[name]] == []


def state(folder):
    """All of the last checkpoint: a table rounds, the records of telemetry in it are float64."""
    newest, complaints = load_newest(folder / "state" / CHECKPOINTS)
    assert complaints == []
    assert len(newest.tensors["records"]) >= RECORDS * 16
    return {name: tensor.numpy().tobytes() for name, tensor in newest.tensors.items()}


def test_of_another_number_of_ranks_the_first_holds_the_sum():
    rows = torch.arange(12.0).view(3, 2, 2)
    cpu = torch.device("cpu")
    assert all(torch.equal(Ranks(k, 3, cpu).own(rows), rows[k]) for k in range(3))
    two = [Ranks(k, 2, cpu).own(rows) for k in range(2)]
    assert torch.equal(two[0], rows.sum(0))
    assert not two[1].any()
    assert torch.equal(Ranks(0, 1, cpu).rows(rows[1]), rows[1:2])


if __name__ == "__main__":
    work(*sys.argv[1:4], int(sys.argv[4]))
