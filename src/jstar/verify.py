"""Every file of a study, or below any folder, against the record of what was made."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jstar.data.card import Card
from jstar.data.store import SPLITS, read_array, stored_arrays
from jstar.errors import JstarError
from jstar.figures import figures_of
from jstar.layout import FIT_TABLES, Layout
from jstar.manifest import CARD, PARENTS, identity, require_of_run
from jstar.records import MADE, SEAL, facts_beside, made_by, read_json, require_as_made

INTACT, DAMAGED, FOREIGN, STALE, MISSING = "intact", "damaged", "foreign", "stale", "missing"
UNRECORDED = "without a record"  # of an older jstar, or of another program: nothing to hold it to
STATES = (INTACT, DAMAGED, FOREIGN, STALE, MISSING, UNRECORDED)
BAD = {DAMAGED, FOREIGN, STALE, MISSING}


@dataclass(frozen=True)
class FileState:
    """What is to be said of one file; `remake`: the command that makes it again."""

    path: Path
    state: str
    says: str = ""
    remake: str = ""

    def line(self) -> str:
        """For the user, in one line."""
        again = f"; run '{self.remake}' again" if self.remake else ""
        return f"{self.path}: {self.state}{' (' + self.says + ')' if self.says else ''}{again}"


def verify_folder(folder: Path) -> list[FileState]:
    """All that records below a folder stand for, and tables without one.

    What a record names and is not there is left out: a folder of references holds some tables only.
    Raises JstarError where there is no such folder.
    """
    if not folder.is_dir():
        raise JstarError(f"{folder}: is no folder, allowed are folders of results")
    records = [path for path in sorted(folder.rglob("*.json")) if made_by_or_broken(path)]
    found = _once(one for record in records for one in _of_record(record) if one.state != MISSING)
    known = {one.path for one in found}
    bare = [path for path in sorted(folder.rglob("*.csv")) if path not in known]
    return found + [FileState(path, UNRECORDED) for path in bare]


def _once(found: Iterable[FileState]) -> list[FileState]:
    """One finding a file, the first that is not good: a table has two records in a study's fits."""
    kept: dict[Path, FileState] = {}
    for one in found:
        if one.path not in kept or (one.state in BAD and kept[one.path].state not in BAD):
            kept[one.path] = one
    return list(kept.values())


def made_by_or_broken(path: Path) -> bool:
    """Whether a .json is a record, or cannot be read and may have been one."""
    try:
        return bool(made_by(path))
    except JstarError:
        return True


def verify_study(layout: Layout, *, page: bool = True) -> list[FileState]:
    """Every file of a study from its data to its page, each with what makes it again.

    page: the page too; without, what it is to be made of.
    """
    found = _of_data(layout.data)
    card_id = identity(layout.data / "card.json") if found[0].state == INTACT else None
    for record, remake in _records(layout, page):
        found += _of_record(record, remake, card_id)
    changed = _of_changed_runs(layout, {one.path for one in found if one.state in BAD})
    return _once([*found, *changed])


def count_states(found: list[FileState]) -> str:
    """How many files are in which state."""
    counts = Counter(one.state for one in found)
    return f"{len(found)} files: " + ", ".join(
        f"{counts[state]} {state}" for state in STATES if counts[state] or state == INTACT
    )


def _records(layout: Layout, page: bool) -> Iterator[tuple[Path, str]]:
    """(record, command that writes it) of all that a study has after its data."""
    study = layout.study
    yield layout.curve.with_suffix(".json"), "jstar optimal"
    yield layout.oracle / "oracle.json", "jstar oracle"
    for model in study.tuned_models:
        yield layout.trials(model).with_suffix(".json"), f"jstar tune --model {model}"
    if study.tuned_models:
        yield from ((layout.tune / f"{name}.json", "jstar tune") for name in ("trials", "tune"))
    for model, seed in study.runs():
        one, run = f"--model {model} --seed {seed}", layout.run(model, seed)
        law = ["noise_law"] if study.train_of(model).noise else []
        for name in ("run", "telemetry", "speed", *law):
            yield run / f"{name}.json", f"jstar train {one}"
        yield layout.losses(model, seed).with_suffix(".json"), f"jstar evaluate {one}"
        quality = layout.quality(model, seed).with_suffix(".json")
        if study.sampling.enabled or quality.exists():
            yield quality, f"jstar sampling draw {one}"
    yield from _there(layout.features, "jstar sampling features")
    if study.kind == "scaling":
        yield from ((layout.fits / f"{name}.json", "jstar fit") for name in FIT_TABLES)
    else:
        yield from _there(layout.variants, "jstar variants losses")
        yield layout.variants / "last.json", "jstar variants losses"
    yield from _there(layout.noise_laws, "jstar variants noise-laws")
    yield from _there(layout.sampling, "jstar sampling quality' and 'jstar sampling theory")
    drawn = figures_of(study.kind, len(study.lengths), study.train.cooldown is not None)
    yield from ((layout.figures / f"{name}.json", f"jstar figures {name}") for name in drawn)
    yield from _there(layout.notebooks, "jstar notebook")
    if page and layout.report.exists():
        yield layout.report.with_suffix(".json"), "jstar report"


def _there(folder: Path, remake: str) -> Iterator[tuple[Path, str]]:
    """The records in a folder, of what a study need not have."""
    yield from ((path, remake) for path in sorted(folder.glob("*.json")) if path.stem != "last")


def _of_data(folder: Path) -> list[FileState]:
    """The card and every array of a prepared dataset."""
    path, remake = folder / "card.json", "jstar prepare"
    if not path.is_file():
        return [FileState(path, MISSING, "", remake)]
    try:
        card = Card.load(path)
    except JstarError as error:
        return [FileState(path, DAMAGED, _words(error, path), remake)]
    found = [FileState(path, INTACT)]
    for split in SPLITS:
        for name in stored_arrays(card, split):
            file = folder / f"{SPLITS[split]}{name}.npy"
            try:
                read_array(folder, card, split, name)
                bare = not card.checksum(split, name)
                found.append(FileState(file, UNRECORDED if bare else INTACT))
            except JstarError as error:
                state = DAMAGED if file.is_file() else MISSING
                found.append(FileState(file, state, _words(error, file), remake))
    return found


def _of_record(record: Path, remake: str = "", card_id: str | None = None) -> list[FileState]:
    """A record and all that it stands for. card_id: of the study's training distribution."""
    table = record.with_suffix(".csv")
    if not record.is_file():
        there = table.is_file()
        return [FileState(table, UNRECORDED) if there else FileState(record, MISSING, "", remake)]
    try:
        facts = read_json(record)
    except JstarError as error:
        return [FileState(record, DAMAGED, _words(error, record), remake)]
    if SEAL not in facts or not (made := facts.get(MADE)):
        return [FileState(table if table.is_file() else record, UNRECORDED)]
    state, says = _state(record, facts.get(CARD), facts.get(PARENTS, {}), card_id)
    found = [FileState(record, state, says, remake if state != INTACT else "")]
    for name in made:
        file = record.parent / name
        try:
            require_as_made(file, record, made[name])
            found.append(FileState(file, INTACT))
        except JstarError as error:
            state = DAMAGED if file.is_file() else MISSING
            found.append(FileState(file, state, _words(error, file), remake))
    return found


def _state(
    record: Path, of: str | None, parents: dict[str, str], card_id: str | None
) -> tuple[str, str]:
    """Whether what a record was made of is still what lies there."""
    if None not in (of, card_id) and of != card_id:
        return FOREIGN, f"of the training distribution {of}, the data are {card_id}"
    run = record.parent / "run.json"
    try:
        require_of_run([record] if run.is_file() else [])
    except JstarError as error:
        if str(error).startswith(f"{record}: "):
            return FOREIGN, _words(error, record)  # else run.json is damaged
    for name, known in parents.items():
        parent = Path(os.path.normpath(record.parent / name))
        try:
            now = identity(parent)
        except JstarError:
            continue  # damaged: that is said where it lies
        if now not in (None, known):
            return STALE, f"{parent} is another one since"
    return INTACT, ""


def _of_changed_runs(layout: Layout, bad: set[Path]) -> Iterator[FileState]:
    """Runs that were trained as the study does not say any more."""
    try:
        study = layout.tuned().study
    except JstarError:  # a damaged rate: that is said where it lies
        return
    for model, seed in layout.study.runs():
        record = layout.run(model, seed) / "run.json"
        if record in bad or not record.is_file():
            continue
        if facts_beside(record).get("config") != json.loads(study.content("train", model)):
            remake = f"jstar train --model {model} --seed {seed}"
            yield FileState(record, STALE, "trained as the study does not say any more", remake)


def _words(error: JstarError, path: Path) -> str:
    """An error about a file, without its name."""
    return str(error).removeprefix(f"{path}: ")
