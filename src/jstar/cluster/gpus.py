"""Hand out this machine's GPUs to jobs: one lock file a device, freed when its job dies.

Snakemake's `gpu` resource counts jobs but does not say which device a job may use. In a SLURM job
only the devices that the cluster gave it are shared out: several runs may stand in one allocation.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jstar.errors import JstarError

POLL_SECONDS = 0.2


def lock_folder() -> Path:
    """Folder of the lock files: JSTAR_LOCKS, or one a user in the temporary folder.

    Every SLURM job has its own on each node: two jobs may both call their GPU 0.
    """
    names = [os.environ.get(key, "") for key in ("SLURM_JOB_ID", "SLURMD_NODENAME")]
    name = "-".join(["jstar-gpus", str(os.getuid()), *filter(None, names)])
    default = Path(tempfile.gettempdir()) / name
    return Path(os.environ.get("JSTAR_LOCKS", default))


def visible_devices() -> list[str]:
    """Devices this process may share out: CUDA_VISIBLE_DEVICES, or every GPU of the machine."""
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is not None:
        return [word for word in stated.split(",") if word]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]


@contextmanager
def claim_gpus(count: int, devices: list[str] | None = None) -> Iterator[list[str]]:
    """Hold `count` devices that no other job of this user holds; waits until they are free.

    Sets CUDA_VISIBLE_DEVICES for this process and its children. For count = 0 it locks nothing and
    yields what is visible.
    Raises JstarError if the machine has fewer devices than asked for.
    """
    devices = visible_devices() if devices is None else devices
    if count == 0:
        yield devices
        return
    if count > len(devices):
        raise JstarError(
            f"resources.train_gpus = {count} is not possible here: this machine shows "
            f"{len(devices)} GPU(s)"
        )
    with ExitStack() as held:
        claimed = _wait_for(count, devices, held)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)
        try:
            yield claimed
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _wait_for(count: int, devices: list[str], held: ExitStack) -> list[str]:
    """Lock `count` of the devices together; never holds some while it waits for others."""
    folder = lock_folder()
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with ExitStack() as attempt:
            claimed: list[str] = []
            for device in devices:
                file = attempt.enter_context((folder / f"gpu-{device}.lock").open("w"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                claimed.append(device)
                if len(claimed) == count:
                    held.enter_context(attempt.pop_all())
                    return claimed
        time.sleep(POLL_SECONDS)
