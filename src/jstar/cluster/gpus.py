"""Hand out this machine's GPUs to jobs: one lock file a device, freed when its job dies.

Snakemake's `gpu` resource counts jobs but does not say which device a job may use. In a SLURM job
only the devices that the cluster gave it are shared out: several runs may stand in one allocation.
"""

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jstar.errors import JstarError
from jstar.private import flaw_of, open_private, private_folder, user_cache

POLL_SECONDS = 0.2


def lock_folder() -> Path:
    """Folder of the lock files: JSTAR_LOCKS, or one a user in the temporary folder.

    Every SLURM job has its own on each node: two jobs may both call their GPU 0. If another user
    took its name, it lies in the cache folder. ($XDG_RUNTIME_DIR would not do: jobs of one user
    may or may not have it, and it goes away at logout.)
    Raises JstarError if JSTAR_LOCKS could be another user's.
    """
    if stated := os.environ.get("JSTAR_LOCKS"):
        if flaw := flaw_of(Path(stated)):
            raise JstarError(
                f"JSTAR_LOCKS: {flaw}; allowed is a folder of this user, sticky or closed to others"
            )
        return Path(stated)
    names = [os.environ.get(key, "") for key in ("SLURM_JOB_ID", "SLURMD_NODENAME")]
    name = "-".join(["jstar-gpus", str(os.getuid()), *filter(None, names)])
    cache = user_cache()
    own = [cache / f"{name}-{socket.gethostname()}"] if cache else []  # nodes may share a home
    return private_folder(Path(tempfile.gettempdir()) / name, *own)


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
    while True:
        with ExitStack() as attempt:
            claimed: list[str] = []
            for device in devices:
                path = folder / f"gpu-{device}.lock"
                file = attempt.enter_context(os.fdopen(open_private(path, create=True), "r+b"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                except OSError as error:  # some network file systems have no locks
                    raise JstarError(
                        f"{path}: cannot be locked ({error.strerror}); set JSTAR_LOCKS to a folder "
                        "on a disk of this machine"
                    ) from error
                claimed.append(device)
                if len(claimed) == count:
                    held.enter_context(attempt.pop_all())
                    return claimed
        time.sleep(POLL_SECONDS)
