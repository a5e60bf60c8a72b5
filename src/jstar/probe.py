"""Which of two ways is the faster here: timed once, for a second or two, and kept.

For ways that give the same result up to rounding, where no rule of the machine's kind decides. The
answers of a machine lie in one file in the user's cache folder, a line each; its name holds the
processor and torch's version. The first answer to a question stays, also for who measured beside;
but a close one, found while the machine had more to do than cores, serves once and is asked for
again.
"""

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from jstar.errors import JstarError
from jstar.hardware import cpu_name
from jstar.native import cpu_features
from jstar.pool import cpu_count
from jstar.private import open_private, private_folder, user_cache

SECONDS = 0.5  # of a measurement
LONGER = 4  # times as long, where the first found the two close
ROUNDS = 5  # at least
CLOSE = 1.25  # times as fast: jobs that share caches and memory have turned such answers over
Way = tuple[str, Callable[[], object]]  # its name, and what is timed


@dataclass(frozen=True)
class Answer:
    """The way that was the faster one: so many times as fast as the other.

    code: hash of the sources that were timed; under others a question is a new one.
    """

    question: str
    faster: str
    times: float
    code: str


def measured(question: str, ways: Callable[[], tuple[Way, Way]], code: Sequence[Path]) -> Answer:
    """The faster of two ways, as this machine's file says, or as timed now and written there.

    question: a name and all that the answer may depend on. ways: called where they are timed.
    code: the files whose change makes the answer void.
    """
    text = b"\0".join(path.read_bytes() for path in code)
    digest, path = hashlib.sha256(text).hexdigest()[:16], answers_file()
    known = _find(_lines(path), question, digest)
    if known is not None:
        return known
    (first, work), (second, other) = ways()
    times = times_as_fast(work, other, SECONDS)
    if 1 / CLOSE < times < CLOSE:
        times = times_as_fast(work, other, LONGER * SECONDS)
    faster = first if times >= 1 else second
    answer = Answer(question, faster, float(f"{max(times, 1 / times):.4g}"), digest)
    crowded = os.getloadavg()[0] > cpu_count()
    return answer if crowded and answer.times < CLOSE else _kept(path, answer)


def answers_file() -> Path:
    """This machine's file, made or not."""
    cache = user_cache()
    folder = private_folder(
        *([cache / "probe"] if cache else []),
        Path(tempfile.gettempdir()) / f"jstar-probe-{os.getuid()}",
    )
    machine = "\n".join([cpu_name(), cpu_features(), torch.__version__, _capability()])
    return folder / f"answers-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.jsonl"


def _capability() -> str:
    """What torch's kernels use, which the environment can lower."""
    return torch.backends.cpu.get_cpu_capability()


def times_as_fast(work: Callable[[], object], other: Callable[[], object], seconds: float) -> float:
    """How many times as fast as `other` is `work`: by the fastest of rounds in turns.

    Whatever else the machine does can only make a round longer.
    """
    # On one thread other jobs do not stretch the processor's time; threads that wait use it up.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    spent: dict[Callable[[], object], list[float]] = {work: [], other: []}
    work(), other()
    begun = time.perf_counter()
    while len(spent[work]) < ROUNDS or time.perf_counter() - begun < seconds:
        for way in (work, other) if len(spent[work]) % 2 else (other, work):  # neither always first
            start = clock()
            way()
            spent[way].append(clock() - start)
    return min(spent[other]) / max(min(spent[work]), 1e-9)


def _lines(path: Path) -> list[str]:
    """Lines of a file of this user; none where it is not there, or may be another's."""
    try:
        with os.fdopen(open_private(path), encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except (OSError, JstarError):
        return []


def _find(lines: list[str], question: str, code: str) -> Answer | None:
    """The first answer to a question; what is damaged counts as not there."""
    for line in lines:
        with suppress(ValueError, TypeError):
            answer = Answer(**json.loads(line))
            if (answer.question, answer.code) == (question, code):
                return answer
    return None


def _kept(path: Path, answer: Answer) -> Answer:
    """Add an answer to the file; that of another process, where that was first."""
    try:
        with os.fdopen(open_private(path, create=True), "r+", encoding="utf-8") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read()
            known = _find(text.splitlines(), answer.question, answer.code)
            if known is not None:
                return known
            # A process that was killed while it wrote may have left half a line.
            file.write("\n" * (not text.endswith("\n") and bool(text)))
            file.write(json.dumps(asdict(answer)) + "\n")
    except (OSError, ValueError, JstarError):
        pass  # measured again next time
    return answer
