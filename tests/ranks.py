"""Several processes that train one run, started by torchrun: for tests of what they share."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from jstar.train.checkpoint import load_newest
from jstar.train.run import CHECKPOINTS

HERE = str(Path(__file__).parent)  # for the processes too


def launch(script, study, data, folder, processes, how=(), *, killed=False):
    """Start a script's `work(study, data, folder, *how)`; what was said on stderr.

    killed: whether it is expected to die.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    more = [script, yaml.safe_dump(study), str(data), str(folder), *map(str, how)]
    path = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *torchrun, *more], capture_output=True, text=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.returncode == 0) == (not killed), done.stderr[-3000:]
    return done.stderr


def state(folder):
    """All of a run's last checkpoint, name -> bytes; published tables round."""
    newest, complaints = load_newest(folder / "state" / CHECKPOINTS)
    assert complaints == []
    names = {name for part in newest.parts for name in part}
    return {name: newest.whole(name).numpy().tobytes() for name in names}
