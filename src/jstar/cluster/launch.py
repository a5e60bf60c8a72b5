"""Start the processes of a training job, and put the job back in the queue when its slice is over.

One process trains by itself. Several are started by torchrun: one agent a node (placed by SLURM's
`srun` if there are several nodes), one worker a GPU. All of them run the same command line.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from jstar.cluster.gpus import claim_gpus
from jstar.errors import JstarError
from jstar.pool import end_with_parent

if TYPE_CHECKING:
    from jstar.train import TrainStatus

SLICE_OVER = ("SIGUSR1", "time budget")  # go on in another slice; SIGTERM means: do not
AGENT = "JSTAR_AGENT"  # set in the processes that srun starts, one a node
REQUEUE_SECONDS = 120  # SLURM's default KillWait is 30


def allocation(gpus: int, nodes: int = 1) -> dict[str, int | str]:
    """Resources of a rule on `gpus` GPUs a node, as Snakemake's SLURM executor reads them.

    One task a node whatever its GPUs (the executor's defaults would start one a GPU): torchrun
    starts the workers inside. Several nodes are an `mpi` job, because only that leaves `srun` to
    the command itself. The partition is $JSTAR_GPU_PARTITION, if set.
    """
    shape: dict[str, int | str] = {}
    if nodes > 1:
        shape = {"nodes": nodes, "tasks": nodes, "mpi": "srun"}
    elif gpus:
        shape = {"nodes": 1, "tasks": 1, "gpu": gpus}  # without nodes, GPUs of several may come
    if gpus:
        shape["tasks_per_gpu"] = 0
        if nodes > 1:
            shape["gres"] = f"gpu:{gpus}"  # a node; `gpu` is a sum over nodes
        if partition := os.environ.get("JSTAR_GPU_PARTITION"):
            shape["slurm_partition"] = partition
    return shape


def launch(
    train: Callable[[], "TrainStatus"],
    *,
    gpus: int,
    nodes: int,
    threads: int | None,
    requeue: bool,
) -> int:
    """Run `train` here, or this process' own command line in `gpus` processes on `nodes` nodes.

    Returns the exit status: 0, 75 (not finished, start me again) or that of what failed. With
    `requeue`, a SLURM job whose slice is over is put back in the queue instead.
    Raises JstarError if this machine has fewer GPUs, or several nodes are asked for without SLURM.
    """
    from jstar.train.loop import EXIT_CONTINUE  # imports torch, which the rules need not

    if "TORCHELASTIC_RUN_ID" in os.environ:  # a worker
        end_with_parent()  # an agent that is gone holds no GPUs
        return train().exit_code
    if nodes > 1 and AGENT not in os.environ:
        code = _srun(gpus, nodes, threads)
        again = code == EXIT_CONTINUE
    else:
        with claim_gpus(gpus):
            if nodes == 1 and gpus <= 1:
                status = train()
                code, again = status.exit_code, status.reason in SLICE_OVER
            else:
                code = _torchrun(gpus, nodes)
                again = code == EXIT_CONTINUE and AGENT not in os.environ
    if again and requeue:
        _requeue()
    return code


def threads_per_process(threads: int | None) -> int | None:
    """Share of `threads`, given for a node, that one of its processes may use."""
    workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return None if threads is None else max(1, threads // workers)


def _command() -> list[str]:
    return ["-m", "jstar", *sys.argv[1:]]


def _torchrun(gpus: int, nodes: int) -> int:
    """The workers of this node. torchrun's own exit status would hide that of the workers."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # it is for the workers, who get it as well
    where = ["--standalone"] if nodes == 1 else [f"--nnodes={nodes}", *_rendezvous()]
    try:
        arguments = [*where, f"--nproc-per-node={max(1, gpus)}", *_command()]
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = int(error.get_first_failure()[1].exitcode)
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _rendezvous() -> list[str]:
    """Where the agents of all nodes meet: on the node that `srun` was called from, the first."""
    job = os.environ["SLURM_JOB_ID"]
    host, first = os.environ["SLURM_LAUNCH_NODE_IPADDR"], os.environ["SLURM_NODEID"] == "0"
    return [
        f"--rdzv-id={job}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={host}:{20000 + int(job) % 20000}",
        f"--rdzv-conf=is_host={int(first)}",
    ]


def _srun(gpus: int, nodes: int, threads: int | None) -> int:
    """One agent a node of this SLURM job."""
    if "SLURM_JOB_ID" not in os.environ:
        raise JstarError(
            f"resources.train_nodes = {nodes} is not possible here: several nodes need a SLURM job"
        )
    placing = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--wait=60"]
    if threads is not None:
        placing.append(f"--cpus-per-task={threads}")
    if gpus:
        placing.append(f"--gres=gpu:{gpus}")
    env = {**os.environ, AGENT: "1"}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # srun has it too, and workers that need to save
    return subprocess.run(["srun", *placing, sys.executable, *_command()], env=env).returncode


def _requeue() -> None:
    """Put this SLURM job back in the queue; SLURM then ends this process. Else return."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:
        return
    # SLURM may end this process with SIGTERM before scontrol returns; torchrun left a handler.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print(
        f"train: the slice is over, job {job} goes back to the queue", file=sys.stderr, flush=True
    )
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"train: SLURM does not requeue job {job}: {done.stderr.strip()}", file=sys.stderr)
        return
    time.sleep(REQUEUE_SECONDS)
