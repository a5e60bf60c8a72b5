"""What belongs together: the records of tables that a command joins, compared before it computes.

A record (`jstar.records.write_record`) says what a stage made, of which training distribution, and
under `parents` of what: the path of each parent's record and the name of its content.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jstar.errors import JstarError
from jstar.records import facts_beside, fingerprint, made_by, read_json

PARENTS = "parents"
# What tables that are joined must share, where they state it.
CARD, UNIT, CONVENTION = "card_id", "loss_unit", "flop_convention"
SHARED = {
    CARD: "the training distribution",
    UNIT: "losses in the unit",
    CONVENTION: "FLOPs counted as",
}


def identity(record: Path) -> str | None:
    """Name of the content that a record, or the one beside a table, stands for; None without one.

    The same bytes have the same name, whenever they are made; a card's is that of its distribution.
    """
    record = record.with_suffix(".json")
    if record.name == "card.json" and record.is_file():
        return str(read_json(record).get("id"))
    files = made_by(record)
    return fingerprint({name: f["sha256"] for name, f in files.items()}) if files else None


def parents(of: Path, records: Iterable[Path | None]) -> dict[str, dict[str, str]]:
    """The entry `parents` of the record beside `of`: path, from there, and name of each."""
    known = {os.path.relpath(r, of.parent): identity(r) for r in records if r is not None}
    return {PARENTS: {path: name for path, name in known.items() if name is not None}}


def require_together(tables: Iterable[Path], *keys: str) -> None:
    """Refuse tables whose records state different values of `keys`. Raises JstarError with both."""
    first: dict[str, tuple[Any, Path]] = {}
    for table in tables:
        facts = facts_beside(table)
        for key in keys:
            if facts.get(key) is None:
                continue
            known, other = first.setdefault(key, (facts[key], table))
            if facts[key] != known:
                raise JstarError(
                    f"{table}: is of {SHARED[key]} {facts[key]}, {other} of {SHARED[key]} {known}; "
                    "they must not be mixed"
                )


def require_of_run(tables: Iterable[Path]) -> None:
    """Refuse tables that were measured on another run than the one in whose folder they lie."""
    for table in tables:
        facts, run = facts_beside(table), table.parent / "run.json"
        if facts.get("run", run.parent.name) != run.parent.name:
            raise JstarError(f"{table}: is of run '{facts['run']}', not of '{run.parent.name}'")
        known = facts_beside(run).get("fingerprint")
        if None not in (known, facts.get("fingerprint")) and known != facts["fingerprint"]:
            raise JstarError(
                f"{table}: is of the run with the fingerprint {facts['fingerprint']}, {run} has "
                f"{known}; they must not be mixed, measure the run again"
            )


def say_unrecorded(tables: Iterable[Path]) -> None:
    """One line on stderr about tables without a record: nothing of them could be checked."""
    bare = [table for table in tables if identity(table) is None]
    if bare:
        others = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
        print(
            f"{bare[0]}{others}: without the record of a jstar stage, taken as it is",
            file=sys.stderr,
        )
