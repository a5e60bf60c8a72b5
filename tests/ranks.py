"""Several processes that train one run, for tests of what they share.

They are forked from one that has loaded torch, with what torchrun sets and with its rule that the
others end where one fails: torchrun and its processes spend ten times as long on loading torch as
on such a test. It starts those of test_parallel.py and test_rehearse.py.
"""

import contextlib
import multiprocessing
import os
import runpy
import socket
import sys
import time
from multiprocessing.connection import wait

import yaml

from jstar.train.checkpoint import load_newest
from jstar.train.run import CHECKPOINTS

SECONDS, PATIENCE = 400, 30  # of all, and of those that are told to end
CONTEXT = multiprocessing.get_context("forkserver")
# torch._dynamo: DDP and FSDP load it as they are made; frozen: the last one.
LOADED = ["torch.distributed.fsdp", "torch._dynamo", "jstar.train.run", "pytest", "frozen"]
CONTEXT.set_forkserver_preload(LOADED)


def launch(script, study, data, folder, processes, how=(), *, killed=False):
    """Start a script's `work(study, data, folder, *how)`; what was said on stderr.

    killed: whether it is expected to die.
    """
    arguments = [script, yaml.safe_dump(study), str(data), str(folder), *map(str, how)]
    codes, text = forked(arguments, folder, processes)
    assert (not any(codes)) == (not killed), text[-3000:]
    return text


def forked(arguments, folder, processes=1):
    """Run a script, or `jstar`, in each of them: exit statuses, and what they said on stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    said = [folder / f"said-{rank}.txt" for rank in range(processes)]
    ranks = []
    for rank, path in enumerate(said):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes,
                  "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1",
                  "MASTER_PORT": port}  # fmt: skip
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        if processes > 1:
            env |= {key: str(value) for key, value in places.items()}
        ranks.append(CONTEXT.Process(target=_rank, args=(arguments, env, str(path))))
        ranks[-1].start()
    return _ended(ranks), "".join(path.read_text() for path in said)


def _rank(arguments, env, said):
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.environ.clear()  # they are those of when the first of all tests was begun
    os.environ.update(env)
    sys.argv = list(map(str, arguments))
    if arguments[0] == "jstar":
        runpy.run_module("jstar", run_name="__main__")
    else:
        runpy.run_path(arguments[0], run_name="__main__")


def _ended(ranks):
    """Exit statuses; once one has failed, or after SECONDS, the others are told to end."""
    deadline = time.monotonic() + SECONDS
    while any(rank.is_alive() for rank in ranks) and time.monotonic() < deadline:
        wait([rank.sentinel for rank in ranks if rank.is_alive()], 1)
        if any(rank.exitcode for rank in ranks):
            break
    late = time.monotonic() >= deadline
    for end in ("terminate", "kill"):
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                getattr(rank, end)()
        until = time.monotonic() + PATIENCE
        for rank in ranks:
            rank.join(max(0.0, until - time.monotonic()))
    assert not late, f"not ended after {SECONDS} s"  # else one that hangs would count as killed
    return [rank.exitcode for rank in ranks]


def state(folder):
    """All of a run's last checkpoint, name -> bytes; published tables round."""
    newest, complaints = load_newest(folder / "state" / CHECKPOINTS)
    assert complaints == []
    names = {name for part in newest.parts for name in part}
    return {name: newest.whole(name).numpy().tobytes() for name in names}
