"""A whole study by one command: Snakemake does the work, one line says how far it is.

The jobs live in a session of their own, so that a signal reaches Snakemake and its jobs together,
once, whoever sent it: from the keyboard, from a batch system, from a terminal that is closed. Of a
`jstar study` that is killed Snakemake finishes the jobs that run, and starts no other.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM
from types import FrameType
from typing import Any

from jstar.application import application
from jstar.config import Study
from jstar.errors import JstarError, nearest
from jstar.layout import Layout
from jstar.pool import cpu_count, end_with_parent
from jstar.progress import Line, clock, short

POLL_SECONDS = 2.0
FORWARDED = (SIGINT, SIGTERM, SIGHUP)
# What Snakemake prints about its jobs.
RULE = re.compile(r"(?:local)?rule (\S+):$")
FAILED = re.compile(r"Error in (?:local)?rule \S+:$")
JOB = re.compile(r"    jobid: (\d+)$")
FINISHED = re.compile(r"Finished jobid: (\d+)")
STEPS = re.compile(r"(\d+) of (\d+) steps")
LOCKED = re.compile(r"^LockException:$", re.MULTILINE)
SENTENCE = re.compile(r"^ *jstar: (.+)$", re.MULTILINE)
STAGE_OF = {"oracle": "optimal", "notebook": "figures", "all": ""}


class Jobs:
    """Which jobs run, and how many are done, from what Snakemake has printed so far."""

    def __init__(self, log: Path) -> None:
        self.log, self.place, self.done, self.total = log, 0, 0, 0
        self.running: dict[str, str] = {}
        self._rule: str | None = None

    def update(self) -> None:
        """Read the whole lines that came since the last time."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self.place)
            while (line := file.readline()).endswith("\n"):
                self.place = file.tell()
                self._read(line.rstrip("\n"))

    @property
    def stages(self) -> str:
        """The stages that run now, in one word each."""
        words = [rule.split("_")[0] for rule in self.running.values()]
        return ", ".join(dict.fromkeys(filter(None, (STAGE_OF.get(w, w) for w in words))))

    def _read(self, line: str) -> None:
        if found := RULE.match(line):
            self._rule = found[1]
        elif FAILED.match(line):
            self._rule = None
        elif found := JOB.match(line):
            if self._rule is None:
                self.running.pop(found[1], None)
            else:
                self.running[found[1]] = self._rule
        elif found := FINISHED.match(line):
            self.running.pop(found[1], None)
        elif found := STEPS.match(line):
            self.done, self.total = int(found[1]), int(found[2])


def run_study(
    study: Study, config: Path, cores: str, profile: str | None, more: tuple[str, ...]
) -> int:
    """Run the DAG of a study in the present folder, results below ./results; the exit status.

    more: options for Snakemake, whose own output is then shown.
    Raises JstarError with the first sentence of what failed.
    """
    layout = Layout(study)
    command = _command(config, cores, profile, more)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path}
    with _folder_in_use(command, env) as lock:
        start: dict[str, Any] = {
            "env": env, "start_new_session": True, "pass_fds": (lock,),
            "preexec_fn": partial(end_with_parent, SIGTERM),
        }  # fmt: skip
        if more:
            with subprocess.Popen(command, **start) as job, _forwarding(job) as stopped:
                code = job.wait()
                return 128 + stopped[0] if stopped else code
        log = layout.logs / "study.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("w") as out,
            subprocess.Popen(command, stdout=out, stderr=out, **start) as job,
            _forwarding(job) as stopped,
        ):
            code = _watch(job, layout, Jobs(log), cores)
    if stopped:
        return 128 + stopped[0]
    if code:
        why = _why(log.read_text(encoding="utf-8", errors="replace"), code)
        raise JstarError(f"study '{study.study}': {why} (all of it: {log})")
    return 0


def _why(text: str, code: int) -> str:
    """The first sentence of what failed, from all that Snakemake printed."""
    if found := SENTENCE.search(text):
        return found[1].rstrip()
    if LOCKED.search(text):
        return (
            f"{Path.cwd()} is locked by another Snakemake; where none runs any more: "
            "snakemake --unlock"
        )
    return f"Snakemake ends with exit status {code}"


@contextmanager
def _folder_in_use(command: list[str], env: dict[str, str]) -> Iterator[int]:
    """Say that a study runs in this folder; yields the file that says so, for Snakemake to hold.

    Snakemake's own lock outlives a Snakemake that is killed or loses power. Where the last study
    did not end by itself and nobody holds the file any more, that lock is removed.
    """
    path = Path(".snakemake/jstar_study.lock")
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as file:
        if _alone(file.fileno()):
            file.seek(0)
            if file.read():
                subprocess.run([*command, "--unlock"], env=env, check=False, capture_output=True)
            file.truncate(0)
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write("in use\n")
        file.flush()
        yield file.fileno()
        if _alone(file.fileno()):
            file.truncate(0)


def _alone(lock: int) -> bool:
    """Whether no other study holds the file."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _command(config: Path, cores: str, profile: str | None, more: tuple[str, ...]) -> list[str]:
    """Snakemake's command line. Its own way to find a profile depends on the present folder."""
    files = application()
    chosen = ["--workflow-profile", str(files / "profiles/default")]
    here = ["--cores", cores]
    if profile is not None:
        own = {path.name: path for path in sorted((files / "profiles").iterdir())}
        if profile not in own and not Path(profile).is_dir():
            raise JstarError(
                f"--profile = {profile} is neither a folder nor one of {', '.join(own)}"
                f"{nearest(profile, own)}"
            )
        folder = own.get(profile, Path(profile))
        chosen += ["--profile", str(folder)]
        if cores == "all" and _hands_jobs_on(folder):
            here = []  # all cores of this machine say nothing of a cluster's
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(files / "Snakefile"), "--configfile",
        str(config), *here, *chosen, *more,
    ]  # fmt: skip


def _hands_jobs_on(profile: Path) -> bool:
    """Whether a profile names an executor, other than this machine."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in profile.glob("config*.yaml"))
    return re.search(r"^executor: *(?!local\b)\w", text, re.MULTILINE) is not None


@contextmanager
def _forwarding(job: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Hand signals on to the job and all that it started; yields the list of those that came."""
    came: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if job.poll() is None:
            os.killpg(job.pid, number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(job: "subprocess.Popen[bytes]", layout: Layout, jobs: Jobs, cores: str) -> int:
    """Say how far the study is until the job ends; its exit status."""
    line, start = Line(), time.monotonic()
    many = cpu_count() if cores == "all" else int(cores)
    while True:
        try:
            code = job.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            jobs.update()
            if line.due():
                line.show(study_line(layout, jobs, many))
            continue
        line.end(f"{layout.study.study}  took {clock(time.monotonic() - start)}")
        return code


def study_line(layout: Layout, jobs: Jobs, cores: int) -> str:
    """Stage, runs and jobs done, images a second, and the time left on so many cores."""
    parts = [layout.study.study, jobs.stages or "starts"]
    if (layout.data / "card.json").is_file():
        from jstar.stage_costs import seconds_left  # a second, while the first jobs run
        from jstar.train.status import study_status

        runs = study_status(layout.tuned())
        finished = sum(run.state == "finished" for run in runs)
        parts.append(f"{finished}/{len(runs)} runs")
        if speed := sum(r.images_per_second or 0 for r in runs if r.state == "running"):
            parts.append(f"{short(speed)} images/s")
        if (left := seconds_left(layout, runs, cores)) is not None:
            parts.append(f"{clock(left)} left")
    if jobs.total:
        parts.insert(3, f"{jobs.done}/{jobs.total} jobs")
    return "  ".join(parts)


def result_lines(study: Study) -> list[str]:
    """What a finished study found, and where its page lies."""
    from jstar.scaling.summary import verdict_table

    layout = Layout(study)
    if study.kind == "scaling":
        found = verdict_table(layout.fits)
    else:
        found = (layout.variants / "summary.md").read_text(encoding="utf-8").splitlines()
    return [*found, "", f"report: {layout.report}"]
