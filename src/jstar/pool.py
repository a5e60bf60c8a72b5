"""Worker processes, and results in the order of the work."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any

from jstar.errors import JstarError
from jstar.progress import Progress

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def cpu_count() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Let this process get a signal when its parent is gone, where the system can."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes, made at once, that end with their parent even if that is killed.

    Forked where the system can: a worker then shares what is loaded, and starts at once.
    """
    method = "fork" if sys.platform.startswith("linux") else "spawn"
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context(method), initializer=_watch, initargs=(os.getpid(),)
    )
    pool.submit(os.getpid).result()  # they are made by the first task
    return pool


def _watch(parent: int) -> None:
    """Leave Ctrl-C to the parent, and end when it is gone.

    At once where the system can: what is still written for a killed parent must not reach the
    files of the next one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)  # not the parent's way to end
    end_with_parent()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _leave(*_: Any) -> None:
    """End as one of several of which another was killed: what is half-written goes first."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # While it sends a result the pool catches this and would wait for the next task, for ever.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    # Raised in a destructor it is printed and ignored; the alarm then ends the process.
    sys.unraisablehook = lambda _: None
    raise SystemExit(128 + signal.SIGTERM)


def _task(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result; where it is told to leave, the parent sees a process that ended."""
    try:
        return function(*arguments)
    except SystemExit as error:
        os._exit(int(error.code or 0))


def in_order(pool: Executor, tasks: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """Results of the tasks (function, arguments…) in their order, a few ahead at a time."""
    waiting: deque[Future[Any]] = deque()
    try:
        for function, *arguments in tasks:
            waiting.append(pool.submit(_task, function, *arguments))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def in_processes(
    function: Callable[..., Any], tasks: list[tuple[Any, ...]], what: str, unit: str
) -> list[Any]:
    """`function(*task)` of every task, by as many processes as there are CPUs; it says how far.

    Raises JstarError where one of them is killed.
    """
    workers = min(cpu_count(), len(tasks))
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(what, len(tasks), unit))
        if workers > 1:
            pool = stack.enter_context(process_pool(workers))
            results = in_order(pool, ((function, *task) for task in tasks), workers)
        else:
            results = (function(*task) for task in tasks)
        found = []
        try:
            for result in results:
                found.append(result)
                bar.advance(1)
        except BrokenProcessPool as error:
            raise JstarError(
                f"{what}: one of {workers} processes was killed, probably for lack of memory; on "
                "fewer CPUs (taskset -c 0) there are fewer of them"
            ) from error
    return found
