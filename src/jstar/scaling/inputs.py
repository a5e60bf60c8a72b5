"""Tables in: anybody's losses, checked by name, row and unit; one sentence a mistake."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jstar.constants import COOLDOWN, TOTAL
from jstar.errors import JstarError
from jstar.noise import Process, process, total_weights
from jstar.records import (
    facts_beside,
    numeric_column,
    read_any_table,
    read_table,
    refuse_rows,
)
from jstar.scaling.input_checks import check_runs, check_units

REQUIRED = ("run", "params", "flops", "loss")
NUMBERS = (
    "params", "flops", "loss", "loss_se", "gap", "gap_se", "images", "tokens", "ema", "seed",
    "mistuned",
)  # fmt: skip


def read_losses(paths: list[Path]) -> pd.DataFrame:
    """Join tables of losses and check every row; columns `source` and `line` say where it is from.

    Without the column sigma there is one loss, `total`; the column tokens is read as images.
    Raises JstarError naming file, line and column: a missing column, a cell that is no number, a
    loss, compute or amount of data not above 0, a negative gap, a row given twice.
    """
    if not paths:
        raise JstarError("losses: no table given, at least one is needed")
    frames = []
    for path in paths:
        frame = read_any_table(path, REQUIRED)
        if frame.empty:
            raise JstarError(f"{path}: holds no rows, at least one is needed")
        if "sigma" not in frame:
            frame["sigma"] = TOTAL
        _check_rows(frame, path)
        if "tokens" in frame:
            frame = _tokens_as_images(frame, path)
        frames.append(frame.assign(source=str(path), line=np.arange(2, len(frame) + 2)))
    joined = pd.concat(frames, ignore_index=True)
    if "model" not in joined:
        joined["model"] = joined["params"].map(lambda p: f"{p:.3g}")
    _check_duplicates(joined)
    check_runs(joined)
    check_units(joined)
    return joined


def with_mistuning(losses: pd.DataFrame, tune: Path) -> pd.DataFrame:
    """Losses with the column mistuned: the share of the gap that another rate may still save.

    tune: the table tune.csv of the study, whose cost is of the total loss; the same share of the
    gap is taken to be at stake at every noise scale. Models that are not in it have 0.
    """
    table = read_table(tune, ("model", "loss", "gap", "cost_percent"))
    share = table["cost_percent"] / 100 * table["loss"] / table["gap"]
    of_model = dict(zip(table["model"].astype(str), share.fillna(0.0), strict=True))
    return losses.assign(mistuned=losses["model"].astype(str).map(of_model).fillna(0.0))


def sigma_key(value: Any) -> float | str:
    """A cell of the column sigma: a number, or the word `total`."""
    return TOTAL if str(value).strip() == TOTAL else float(value)


def _tokens_as_images(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if "images" in frame:
        other = ~(frame["images"].eq(frame["tokens"]) | frame["tokens"].isna())
        hint = "column 'images' says otherwise: the data D that a model has seen is one of them"
        refuse_rows(frame, other, path, "tokens", hint)
        return frame.drop(columns="tokens")
    return frame.rename(columns={"tokens": "images"})


def data_word(paths: list[Path]) -> str | None:
    """What the tables call the data that a model has seen: tokens or images, None without."""
    columns = {c for path in paths for c in read_any_table(path, quiet=True).columns}
    return next((word for word in ("tokens", "images") if word in columns), None)


def stated(paths: list[Path], key: str) -> str | None:
    """What the .json beside every table says of its loss or compute, if all say the same.

    That is how this package's own tables are known; of another's nothing is claimed.
    """
    said = {facts_beside(path).get(key) for path in paths}
    return said.pop() if len(said) == 1 else None


def _check_rows(frame: pd.DataFrame, path: Path) -> None:
    for column in [c for c in NUMBERS if c in frame]:
        numeric_column(frame, column, path)
    numbers = pd.to_numeric(frame["sigma"].astype(str).replace(TOTAL, "1"), errors="coerce")
    refuse_rows(
        frame, ~(numbers > 0), path, "sigma", "allowed are numbers above 0 and the word total"
    )
    frame["sigma"] = [sigma_key(v) for v in frame["sigma"]]
    refuse_rows(frame, frame["run"].isna(), path, "run", "the name of a training run is needed")
    for column in ("params", "flops", "loss"):
        refuse_rows(frame, frame[column].isna(), path, column, "a number is needed")
        refuse_rows(frame, ~np.isfinite(frame[column]), path, column, "a finite number is needed")
        refuse_rows(frame, frame[column] <= 0, path, column, "it must be above 0")
    for column in [c for c in ("images", "tokens") if c in frame]:
        refuse_rows(frame, frame[column] <= 0, path, column, "it must be above 0")
    if "gap" in frame:
        hint = (
            "a direct gap is a mean of squares, 0 or above; leave the column out to use loss - J*"
        )
        refuse_rows(frame, frame["gap"] < 0, path, "gap", hint)
    for column, what in (
        ("loss_se", "a standard error"), ("gap_se", "a standard error"), ("mistuned", "a share"),
    ):  # fmt: skip
        if column in frame:
            refuse_rows(frame, frame[column] < 0, path, column, f"{what} is 0 or above")


def _check_duplicates(frame: pd.DataFrame) -> None:
    key = [c for c in ("run", "params", "flops", "ema", "split", "sigma") if c in frame]
    repeated = frame.duplicated(key)
    if repeated.any():
        row = frame[repeated].iloc[0]
        raise JstarError(
            f"{row['source']}: line {row['line']} repeats run '{row['run']}' at flops = "
            f"{row['flops']:g}, sigma = {row['sigma']}; every measurement may appear once"
        )


def select(
    losses: pd.DataFrame, *, split: str = "train", ema: float | None = None, min_images: int = 0
) -> pd.DataFrame:
    """The rows that are fitted: one split, one EMA length, no snapshots before `min_images`.

    ema: None stands for the first length in the table that is not COOLDOWN.
    """
    rows = losses
    if "split" in rows:
        rows = rows[rows["split"].isna() | (rows["split"] == split)]
    if "ema" in rows and rows["ema"].notna().any():
        chosen = [*average_lengths(rows), COOLDOWN][0] if ema is None else ema
        rows = rows[rows["ema"].isna() | np.isclose(rows["ema"], chosen)]
        if rows.empty:
            raise JstarError(f"losses: no row has ema = {chosen:g}")
    if min_images and "images" not in rows:
        raise JstarError(f"losses: min_images = {min_images} needs the column 'images'")
    if "images" in rows:
        rows = rows[~(rows["images"] < min_images)]
    if rows.empty:
        raise JstarError(
            f"losses: no row is left to fit with split = {split} and images >= {min_images}"
        )
    if rows["params"].nunique() < 2:
        first = rows.iloc[0]
        raise JstarError(
            f"{first['source']}: column 'params' holds one size only ({first['params']:g}), a "
            "frontier over compute needs at least 2"
        )
    return rows


def average_lengths(losses: pd.DataFrame) -> list[float]:
    """The EMA lengths that were measured, in the table's order; the ends of cooldowns are none."""
    if "ema" not in losses:
        return []
    return [float(length) for length in losses["ema"].dropna().unique() if length != COOLDOWN]


def with_total(losses: pd.DataFrame, proc: Process | str | None) -> pd.DataFrame:
    """Rows with sigma = total added where the table has none and the training process is known.

    Raises JstarError for a table of one noise scale: a total is an integral over them.
    """
    if (losses["sigma"] == TOTAL).any() or proc is None:
        return losses
    chosen = process(proc) if isinstance(proc, str) else proc
    sigma = np.sort(losses["sigma"].astype(float).unique())
    if len(sigma) < 2:
        raise JstarError(
            f"losses: column 'sigma' holds one noise scale only ({sigma[0]:g}), the total loss of "
            "a process (--process) needs at least 2; leave the process out"
        )
    weight = dict(zip(sigma, total_weights(chosen, sigma), strict=True))
    scaled = losses.assign(weight=losses["sigma"].astype(float).map(weight))
    sums = [c for c in ("loss", "loss_se", "gap", "gap_se") if c in losses]
    for column in sums:  # errors add up linearly: the same draws serve all noise scales
        scaled[column] = scaled[column] * scaled["weight"]
    key = [c for c in ("run", "flops", "ema", "split") if c in losses]
    groups = scaled.groupby(key, dropna=False, sort=False)
    total = scaled.groupby(key, dropna=False, sort=False).first().reset_index()
    summed = groups[sums].sum(min_count=len(sigma)).reset_index()
    total[sums], total["sigma"] = summed[sums], TOTAL
    total = total[total["loss"].notna()]
    return pd.concat([losses, total[losses.columns]], ignore_index=True)
