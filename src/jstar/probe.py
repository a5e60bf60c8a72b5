"""Which of two ways is the faster here: timed once, for a second or some, and kept.

For ways that give the same result up to rounding, where no rule of the machine's kind decides. The
answers of a machine lie in one file in the user's cache folder, a line each; its name holds the
processor and torch's version. The first answer to a question stays, also for who measured beside;
but a close one, found while the machine had more to do than cores, serves once and is asked for
again.
"""

import fcntl
import hashlib
import json
import math
import os
import statistics
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
LONGEST = (
    10.0  # seconds of one of which little is sure: rounds of a shared machine differ by tenths
)
ROUNDS = 5  # at least
DISTURBED = 1.3  # times the fastest round: something else ran
PRECISE, SURE = 0.01, 4  # standard error of a ratio that is enough; so many of them are no chance
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
    times = times_as_fast(work, other, SECONDS, LONGEST)
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


def times_as_fast(
    work: Callable[[], object], other: Callable[[], object], seconds: float, longest: float = 0
) -> float:
    """How many times as fast as `other` is `work`, in rounds in turns.

    longest: go on for so many seconds, as long as neither is surely the faster one.
    """
    # On one thread other jobs do not stretch the processor's time; threads that wait use it up.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    spent: dict[Callable[[], object], list[float]] = {work: [], other: []}
    work(), other()
    begun = time.perf_counter()
    while (
        len(spent[work]) < ROUNDS
        or (passed := time.perf_counter() - begun) < seconds
        or (passed < longest and _unsure(_log_ratios(spent[other], spent[work])))
    ):
        for way in (work, other) if len(spent[work]) % 2 else (other, work):  # neither always first
            start = clock()
            way()
            spent[way].append(clock() - start)
    return ratio(spent[other], spent[work])


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """How many times as long took a as b, seconds of rounds in turns: where nothing else ran.

    The machine's own speed changes within seconds, so that neither the fastest rounds nor the
    medians of the two are of the same moments: the mean is over pairs.
    """
    logs = _log_ratios(a, b)
    return math.exp(sum(logs) / len(logs)) if logs else min(a) / max(min(b), 1e-9)


def _log_ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Of the pairs in which neither took much longer than its fastest."""
    most_a, most_b = DISTURBED * min(a), DISTURBED * min(b)
    pairs = zip(a, b, strict=True)
    return [math.log(x / y) for x, y in pairs if 0 < x <= most_a and 0 < y <= most_b]


def _unsure(logs: list[float]) -> bool:
    """Whether their mean is neither precise nor surely of one sign."""
    if len(logs) < ROUNDS:
        return True
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    return error > PRECISE and abs(statistics.fmean(logs)) < SURE * error


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
