"""`jstar` and `snakemake` forked from one process that has loaded other people's packages.

    python tests/warm.py serve SOCKET            the process
    python tests/warm.py SOCKET jstar plan …     a command, as by `python -m jstar plan …`

Loading torch, pandas and lmfit takes a start of either two seconds, and the tests of the workflow
have two hundred. The package itself is not loaded beforehand: it is what PYTHONPATH of each command
says. What a start loads, and a study as users start it, are tested elsewhere (test_cli.py,
workflow/test_anywhere.py).
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
import traceback

LOADED = (
    "torch", "pandas", "scipy.stats", "scipy.optimize", "lmfit", "matplotlib.pyplot", "seaborn",
    "plotly.graph_objects", "jinja2", "pydantic", "typer", "yaml", "sklearn.datasets",
    "safetensors.torch", "PIL.Image", "snakemake.cli", "snakemake.workflow", "papermill",
    "nbconvert",
)  # fmt: skip
PATIENCE = 120  # seconds, for the process to be there


def ask(place: str, arguments: list[str]) -> int:
    """Have a command run with this process' files, folder and environment; its exit status."""
    deadline = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_UNIX) as line:
        while True:
            try:
                line.connect(place)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        told = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(line, [b" "], [0, 1, 2])
        line.sendall(json.dumps(told).encode() + b"\n")
        status = int(line.recv(16) or b"1")
    return 128 - status if status < 0 else status


def serve(place: str) -> None:
    """Fork a command for everybody who asks; returns in the process that is to run it."""
    for name in LOADED:
        importlib.import_module(name)
    own = set(sys.path)
    importlib.import_module("frozen")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen(64)
        while True:
            line, _ = door.accept()
            if os.fork() == 0:
                break
            line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(line, 1, 3)
    with line.makefile("rb") as text:
        told = json.loads(text.readline())
    if child := os.fork():
        os._exit(_watch(line, child))
    line.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    paths = [told["folder"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*paths, *(path for path in sys.path if path in own and path != sys.path[0])]
    sys.argv = told["arguments"]


def _watch(line: socket.socket, child: int) -> int:
    """Say how the command ended; where nobody listens any more it is killed."""
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([line, ended], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        line.sendall(str(status).encode())
    return 0


def run() -> int:
    """The command of sys.argv; its exit status."""
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(status: int) -> None:
    """As Python ends, but for taking apart all that was loaded: that alone takes a second."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] != "serve":
        raise SystemExit(ask(sys.argv[1], sys.argv[2:]))
    serve(sys.argv[2])
    end(run())
