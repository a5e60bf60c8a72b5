"""Every result is written here: tidy tables and their provenance, whole or not at all.

A table `x.csv` always has a neighbour `x.json`, its record: where it comes from, under `made` the
checksum of each file it stands for, and `seal`, its own. Reading checks both.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jstar import __version__
from jstar.errors import JstarError
from jstar.temporary import temporary

if TYPE_CHECKING:
    import pandas as pd  # half a second that `jstar --help` need not wait: read where it is used

FLOP_CONVENTION = "2 FLOPs per multiply-add; training = 3 x forward"
LOSS_UNIT = "mean squared error per dimension, in the model's data scale"

LOSSES_COLUMNS = (
    "study", "run", "model", "params", "seed", "snapshot", "images", "flops",
    "ema", "split", "sigma", "loss", "loss_se", "gap", "gap_se",
)  # fmt: skip
VARIANTS_COLUMNS = (
    "study", "run", "model", "process", "params", "seed", "images", "sigma", "loss", "loss_se",
    "optimal", "optimal_se", "gap", "gap_se", "holdout", "holdout_se", "weight",
)  # fmt: skip
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a TAB"}
CURVE_COLUMNS = ("sigma", "loss", "stderr", "lower", "upper")
MADE, SEAL = "made", "seal"
RECORD_KEYS = (MADE, SEAL, "jstar")


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary name beside `path`, flush it to disk, then rename.

    The file is there and locked: `write` fills it and puts no other in its place.
    After a crash there is the old file or the new one, never half of one; what was begun goes when
    the file is written the next time.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as (_, name):
            write(name)
            with name.open("rb+") as file:
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # it was made private; results are meant to be shared
            name.replace(path)
    except OSError as error:
        raise JstarError(f"{path}: cannot be written ({error.strerror})") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, tree: dict[str, Any]) -> None:
    """Write JSON whole or not at all. NaN and infinity become null: JSON has no word for them."""
    write_text(path, json.dumps(_plain(tree), indent=2, allow_nan=False) + "\n")


def write_array(path: str | Path, array: Any) -> None:
    """Write a .npy file whole or not at all."""
    import numpy as np

    write_atomically(path, lambda p: np.save(p, array))


def write_table(
    path: str | Path,
    frame: "pd.DataFrame",
    provenance: dict[str, Any],
    beside: Iterable[Path] = (),
) -> None:
    """Write a tidy table to `path` (.csv) and its record beside it (.json).

    Floats keep 9 significant digits: more than any error bar here, and the same on every machine.
    beside: files of the same stage, which have no record of their own.
    """
    path = Path(path)
    write_text(path, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    write_record(path.with_suffix(".json"), provenance, [path, *beside])


def write_record(path: str | Path, facts: dict[str, Any], made: Iterable[Path] = ()) -> None:
    """Write `facts` with the size and sha256 of every file in `made`, and sealed.

    The files lie in the record's folder or below it, and are whole already. Facts read from a
    record keep the files that it stands for.
    """
    path = Path(path)
    known = facts.get(MADE, {})
    files = {file.relative_to(path.parent).as_posix(): describe(file) for file in made}
    write_json(path, sealed({**facts, MADE: {**known, **files}}))


def describe(path: Path) -> dict[str, Any]:
    """bytes and sha256 of a file; of a table (.csv) also its rows."""
    facts = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return facts | ({"rows": _rows(path)} if path.suffix == ".csv" else {})


def _rows(path: Path) -> int:
    """Rows of a table, its head not counted."""
    return path.read_bytes().count(b"\n") - 1


def sealed(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the fingerprint of all the rest of it."""
    rest = {key: value for key, value in tree.items() if key != SEAL}
    return {**rest, SEAL: fingerprint(rest)}


def sha256_of(path: str | Path, start: int = 0) -> str:
    """sha256 of a file from byte `start` on, read in blocks; once, while the file stays the same.

    Raises OSError.
    """
    facts = Path(path).stat()
    return _sha256(str(path), start, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@lru_cache(maxsize=4096)
def _sha256(path: str, start: int, *_: int) -> str:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_intact(path: str | Path, record: str | Path | None = None, then: str = "") -> None:
    """Raise JstarError where a record says that the file was another one when it was made.

    record: default: the .json beside it. What has no record is anybody's, and passes. then: what
    is to be done.
    """
    path = Path(path)
    if path.is_dir():
        return  # whoever reads it says so
    record = path.with_suffix(".json") if record is None else Path(record)
    known = made_by(record).get(os.path.relpath(path, record.parent))
    if known is not None:
        require_as_made(path, record, known, then)


def require_as_made(path: Path, record: Path, known: dict[str, Any], then: str = "") -> None:
    """Raise JstarError where a file is not as `known`, what its record says of it."""
    if not path.exists():
        raise JstarError(f"{path}: is missing, {record} names it{f'; {then}' if then else ''}")
    try:
        size = path.stat().st_size
        if size == known["bytes"] and sha256_of(path) == known["sha256"]:
            return
        found = "other bytes" if size == known["bytes"] else f"{size} bytes of {known['bytes']}"
        if "rows" in known and (rows := _rows(path)) != known["rows"]:
            found = f"{rows} rows of {known['rows']}"
    except OSError as error:
        raise JstarError(f"{path}: cannot be read ({error.strerror})") from error
    raise JstarError(
        f"{path}: is damaged or was edited, {record} says otherwise ({found})"
        + (f"; {then}" if then else "")
    )


def facts_beside(path: Path) -> dict[str, Any]:
    """What the .json beside a table says, or one itself; nothing without, or if it is another's.

    Raises JstarError where it is a record that was cut or edited.
    """
    if path.is_dir() or not (record := path.with_suffix(".json")).is_file():
        return {}
    try:
        tree = _load(record)
    except JstarError:
        if _was_record(record):
            raise
        return {}
    return _unbroken(record, tree) if isinstance(tree, dict) else {}


def _was_record(path: Path) -> bool:
    """Whether a file that is no JSON is the rest of a record: empty, or with a key of one."""
    text = path.read_bytes() if path.is_file() else b""
    return not text.strip(b"\0 \n") or any(f'"{k}":'.encode() in text for k in RECORD_KEYS)


def made_by(record: Path) -> dict[str, Any]:
    """The files that a record stands for and what it says of each; none where it is no record."""
    made = facts_beside(record).get(MADE)
    return dict(made) if made is not None and _is_made(made) else {}


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON file; of a record the seal is checked. Raises JstarError with one sentence."""
    tree = _load(Path(path))
    if not isinstance(tree, dict):
        raise JstarError(f"{path}: holds {type(tree).__name__}, a set of keys is needed")
    return _unbroken(Path(path), tree)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JstarError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
        raise JstarError(f"{path}: is not valid JSON ({error})") from error


def _unbroken(path: Path, tree: dict[str, Any]) -> dict[str, Any]:
    """The tree itself, where its seal is whole or it never had one."""
    if (SEAL in tree or _is_made(tree.get(MADE))) and tree != sealed(tree):
        raise JstarError(
            f"{path}: is damaged or was edited, its seal is not of its content; make it again"
        )
    return tree


def _is_made(value: Any) -> bool:
    """Whether the key `made` is that of a record, which has a seal."""
    return isinstance(value, dict) and all(
        isinstance(facts, dict) and "sha256" in facts for facts in value.values()
    )


def read_table(
    path: str | Path, required: Iterable[str] = (), *, separator: str = ","
) -> "pd.DataFrame":
    """Read a tidy table and check that the required columns are there."""
    import pandas as pd

    require_intact(path, then="make it again, or remove that .json if the change is meant")
    try:
        frame = pd.read_csv(path, sep=separator)
    except OSError as error:
        raise JstarError(f"{path}: cannot be read ({error.strerror})") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        kind = SEPARATORS[separator]
        raise JstarError(f"{path}: is not a table whose columns {kind} separates") from error
    require_columns(path, frame, required)
    return frame


def require_columns(path: str | Path, frame: "pd.DataFrame", required: Iterable[str]) -> None:
    """Raise JstarError naming the required columns that are not there."""
    missing = [f"'{c}'" for c in required if c not in frame.columns]
    if missing:
        words = "column {} is" if len(missing) == 1 else "columns {} are"
        raise JstarError(
            f"{path}: the {words.format(', '.join(missing))} missing, found are "
            + ", ".join(map(str, frame.columns))
        )


def read_any_table(
    path: str | Path, required: Iterable[str] = (), *, quiet: bool = False
) -> "pd.DataFrame":
    """Read anybody's table: separated by comma, semicolon or TAB, column names in any case.

    Unless `quiet`, stderr says what was assumed. A byte order mark is skipped; decimal commas are
    read where semicolon or TAB separate.
    Raises JstarError as `read_table` does, and where two columns differ in case only.
    """
    import pandas as pd

    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            head = file.readline()
    except OSError as error:
        raise JstarError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise JstarError(f"{path}: is not a text table in UTF-8") from error
    separator = max(SEPARATORS, key=head.count)
    frame = read_table(path, separator=separator)
    assumed = [] if separator == "," else [f"columns are separated by {SEPARATORS[separator]}"]
    if separator != ",":
        points = [str(column) for column in frame if _decimal_commas(frame, str(column))]
        assumed += [f"commas in {', '.join(points)} are decimal points"] if points else []
    names = [str(name).strip().lower() for name in frame.columns]
    for name in names:
        if names.count(name) > 1:
            raise JstarError(f"{path}: the column '{name}' is there twice, whatever its case")
    other = [str(old) for old, new in zip(frame.columns, names, strict=True) if str(old) != new]
    assumed += [f"column names are read in lower case ({', '.join(other)})"] if other else []
    frame.columns = pd.Index(names)
    require_columns(path, frame, required)
    if assumed and not quiet:
        print(f"{path}: {'; '.join(assumed)}", file=sys.stderr)
    return frame


def _decimal_commas(frame: "pd.DataFrame", column: str) -> bool:
    """Make numbers of a column of text such as 1,5; whether it was one."""
    import pandas as pd

    text = frame[column].dropna().astype(str).str.strip()
    comma = text.str.contains(",", regex=False)
    if not comma.any() or not text.str.fullmatch(r"[-+]?\d+(,\d+)?([eE][-+]?\d+)?").all():
        return False
    frame[column] = pd.to_numeric(frame[column].str.replace(",", ".", regex=False))
    return True


def numeric_column(frame: "pd.DataFrame", column: str, path: Path) -> None:
    """Make a column numeric. Raises JstarError naming the first cell with text."""
    import pandas as pd

    numbers = pd.to_numeric(frame[column], errors="coerce")
    refuse_rows(frame, numbers.isna() & frame[column].notna(), path, column, "a number is needed")
    frame[column] = numbers


def refuse_rows(
    frame: "pd.DataFrame", bad: "pd.Series[bool]", path: Path, column: str, allowed: str
) -> None:
    """Raise JstarError about the first bad row; lines count from 1 with the header."""
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise JstarError(
            f"{path}: line {row + 2}, column '{column}': found {frame[column].iloc[row]}, {allowed}"
        )


def fingerprint(content: Any) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON of `content`."""
    text = content if isinstance(content, str) else json.dumps(_plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def provenance(**facts: Any) -> dict[str, Any]:
    """What every result carries: version, commit, conventions, and the caller's own facts."""
    return {
        "jstar": __version__,
        "commit": git_commit(),
        "flop_convention": FLOP_CONVENTION,
        "loss_unit": LOSS_UNIT,
        **facts,
    }


@cache
def git_commit() -> str | None:
    """Commit of the checkout that this package lies in (`-dirty` if changed); None outside git."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _plain(value: Any) -> Any:
    """`value` with plain Python numbers, lists and strings only."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if type(value).__module__ == "numpy":  # which is slow to import for `jstar --help`
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
