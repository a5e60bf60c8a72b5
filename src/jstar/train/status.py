"""Where every run of a study stands: the table behind `jstar status`."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jstar.curve import read_curve
from jstar.data.card import Card
from jstar.data.check import source_shape
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.progress import clock
from jstar.records import read_json, write_json
from jstar.train.events import run_events
from jstar.train.run import Run
from jstar.train.speed import WALL_CLOCK

STATE_FILE = "state.json"
LOCK_FILE = "lock"
DRAWS = 1 << 16  # of the noise law, where the curve ends


@dataclass(frozen=True)
class RunStatus:
    """One run. `gap` is its training loss above the optimal one, None before J* is known."""

    run: str
    state: str  # finished, outdated (by a changed study), running, stopped, waiting
    images: int
    total: int
    loss: float | None
    gap: float | None
    images_per_second: float | None
    seconds_left: float | None
    wall_clock: dict[str, float] = field(default_factory=dict)  # seconds by what they went into


def study_status(layout: Layout) -> list[RunStatus]:
    """The status of every run of a study, in the ladder's order."""
    return [_run_status(layout, model, seed) for model, seed in layout.study.runs()]


def status_table(runs: list[RunStatus], before: list[RunStatus]) -> str:
    """The status of runs, and what comes before them, as aligned text; a dash: not known yet."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    head = (
        f"{'run':<16}{'state':<10}{'images':>22}{'loss':>9}{'gap':>10}{'images/s':>11}{'left':>10}"
    )
    lines = [head]
    for run in [*before, *runs]:
        done = f"{run.images:,}/{run.total:,}"
        left = "-" if run.seconds_left is None else clock(run.seconds_left)
        lines.append(
            f"{run.run:<16}{run.state:<10}{done:>22}{number(run.loss, '.4f'):>9}"
            f"{number(run.gap, '.4f'):>10}{number(run.images_per_second, ',.0f'):>11}{left:>10}"
        )
    finished = sum(run.state == "finished" for run in runs)
    lines.append(f"{finished} of {len(runs)} runs finished")
    spent = {what: sum(r.wall_clock.get(what, 0.0) for r in runs) for what in WALL_CLOCK}
    total = sum(spent.values())
    if total:
        words = ", ".join(f"{what} {seconds / total:.1%}" for what, seconds in spent.items())
        lines.append(f"wall-clock time of the runs, {clock(total)}: {words}")
    return "\n".join(lines)


@contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Keep other processes out of a run's state, until the block or this process ends.

    A workflow that was killed leaves its jobs running; the next one must not train beside them.
    Of a run that fails before it has a state nothing is left, neither lock nor new folders.
    """
    made = [folder for folder in (state, *state.parents) if not folder.exists()]
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = (state / LOCK_FILE).open("a+")
    except OSError as error:
        raise JstarError(f"{state}: cannot be written ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink == 0:  # its last holder just removed it
                raise BlockingIOError
        except BlockingIOError as error:
            file.seek(0)
            raise JstarError(
                f"{state}: process {file.read().strip() or '?'} is training this run already"
            ) from error
        except OSError:
            pass  # a file system without locks
        for half in state.rglob(".*"):  # what a killed process was writing
            half.unlink(missing_ok=True)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            if state.is_dir() and list(state.iterdir()) == [state / LOCK_FILE]:
                (state / LOCK_FILE).unlink()
                _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, up to one that holds something."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def write_state(run: Run, loss: float) -> None:
    """Note how far a run is, for `study_status`."""
    speed = run.speed.rows[-1].images_per_second
    facts = {
        "images": run.trained_images,
        "loss": loss,
        "images_per_second": speed,
        "time": time.time(),
        "wall_clock": run.speed.rows[-1].wall_clock,
    }
    if run.noise_law.floor is not None:
        facts["floor"] = run.noise_law.floor
    write_json(run.state / STATE_FILE, facts)


def _run_status(layout: Layout, model: str, seed: int) -> RunStatus:
    card = layout.data / "card.json"
    shape = Card.load(card).shape if card.is_file() else source_shape(layout.study.dataset)[1:]
    total = run_events(layout.study, model, shape).total_images
    state, run = layout.state(model, seed), layout.run(model, seed)
    facts: dict[str, Any] = {}
    if (state / STATE_FILE).is_file():
        facts = read_json(state / STATE_FILE)
    done = read_json(run / "run.json") if (run / "run.json").is_file() else None
    if done is not None:
        wanted = json.loads(layout.study.content("train", model))
        what = "finished" if done["config"] == wanted else "outdated"
    elif is_held(state):
        what = "running"
    else:
        what = "stopped" if facts else "waiting"
    images = total if what == "finished" else int(facts.get("images", 0))
    loss, speed = facts.get("loss"), facts.get("images_per_second")
    floor = facts["floor"] if "floor" in facts else _optimal_total(layout, model)
    return RunStatus(
        run=run.name,
        state=what,
        images=images,
        total=total,
        loss=loss,
        gap=None if loss is None or floor is None else loss - floor,
        images_per_second=speed,
        seconds_left=(total - images) / speed if speed else None,
        wall_clock=facts.get("wall_clock", {}),
    )


def is_held(state: Path) -> bool:
    """Whether a living process works on what this folder is the state of."""
    try:
        with (state / LOCK_FILE).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _optimal_total(layout: Layout, model: str) -> float | None:
    """E_sigma[weight J*]: the training loss no network can go below; None without a curve.

    The total of the fits and, because training draws there and evaluation does not, what lies above
    the curve. Below it J* counts as 0.
    """
    if not layout.curve.is_file():
        return None
    curve, proc = read_curve(layout.curve), layout.study.train_of(model).make_process()
    sigma = proc.law.quantile((np.arange(DRAWS) + 0.5) / DRAWS)
    above = sigma[sigma > curve.sigma[-1]]
    return curve.total(proc)[0] + float(np.sum(proc.weight(above) * curve.at(above)[0])) / DRAWS
