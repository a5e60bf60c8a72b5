"""Tables in: anybody's losses and J*, checked by name, row and unit; one sentence a mistake."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jstar.constants import NORMAL_95, TOTAL
from jstar.errors import JstarError
from jstar.noise import Process, process, total_weights
from jstar.records import CURVE_COLUMNS, read_json, read_table
from jstar.scaling.input_checks import check_units
from jstar.scaling.laws import Array

REQUIRED = ("run", "params", "flops", "loss")
NUMBERS = (
    "params", "flops", "loss", "loss_se", "gap", "gap_se", "images", "tokens", "ema", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """J* over sigma, [S]: loss, its standard error, and the correlation [S, S] of the errors."""

    sigma: Array
    loss: Array
    stderr: Array
    correlation: Array
    facts: dict[str, Any]

    def at(self, sigma: float) -> tuple[float, float]:
        """J* and its standard error at a noise scale of the curve. Raises JstarError elsewhere."""
        found = np.flatnonzero(np.isclose(self.sigma, sigma, rtol=1e-6))
        if not len(found):
            nearest = float(self.sigma[np.argmin(np.abs(np.log(self.sigma / sigma)))])
            raise JstarError(
                f"optimal loss: sigma = {sigma:g} of the losses is not on the curve, the nearest "
                f"is {nearest:g}; estimate J* on the noise scales of the losses"
            )
        return float(self.loss[found[0]]), float(self.stderr[found[0]])

    def total(self, sigma: Array, weights: Array) -> tuple[float, float]:
        """sum_s W_s J*(sigma_s) and its standard error: the same draws serve every sigma."""
        index = [int(np.argmin(np.abs(np.log(self.sigma / s)))) for s in sigma]
        for s in sigma:
            self.at(float(s))
        error = weights * self.stderr[index]
        variance = float(error @ self.correlation[np.ix_(index, index)] @ error)
        return float(weights @ self.loss[index]), float(np.sqrt(max(variance, 0.0)))


def read_curve(path: Path) -> Curve:
    """Read curve.csv (sigma, loss; stderr or lower and upper) and, beside it, curve.json."""
    frame = read_table(path, ("sigma", "loss"))
    facts = read_json(path.with_suffix(".json")) if path.with_suffix(".json").is_file() else {}
    for column in [c for c in CURVE_COLUMNS if c in frame]:
        _numeric(frame, column, path)
    for column in ("sigma", "loss"):
        _refuse(frame, frame[column].isna(), path, column, "a number is needed")
    _refuse(frame, frame["loss"] < 0, path, "loss", "J* is a mean square, 0 or above")
    frame = frame.sort_values("sigma").reset_index(drop=True)
    repeated = frame["sigma"].duplicated()
    _refuse(frame, repeated, path, "sigma", "every noise scale may appear once")
    if "stderr" in frame:
        stderr = frame["stderr"].fillna(0.0).to_numpy(dtype=float)
    elif {"lower", "upper"} <= set(frame):
        stderr = ((frame["upper"] - frame["lower"]) / (2 * NORMAL_95)).to_numpy(dtype=float)
    else:
        stderr = np.zeros(len(frame))
    size = len(frame)
    correlation = np.ones((size, size))  # without it: fully correlated, the widest total
    if facts.get("correlation") is not None:
        correlation = np.array(facts["correlation"], dtype=float)
        if correlation.shape != (size, size):
            raise JstarError(
                f"{path.with_suffix('.json')}: correlation has shape {correlation.shape}, the "
                f"curve has {size} noise scales"
            )
    sigma, loss = frame["sigma"].to_numpy(dtype=float), frame["loss"].to_numpy(dtype=float)
    return Curve(sigma, loss, stderr, correlation, facts)


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
        frame = read_table(path, REQUIRED)
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
    check_units(joined)
    return joined


def sigma_key(value: Any) -> float | str:
    """A cell of the column sigma: a number, or the word `total`."""
    return TOTAL if str(value).strip() == TOTAL else float(value)


def _tokens_as_images(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if "images" in frame:
        other = ~(frame["images"].eq(frame["tokens"]) | frame["tokens"].isna())
        hint = "column 'images' says otherwise: the data D that a model has seen is one of them"
        _refuse(frame, other, path, "tokens", hint)
        return frame.drop(columns="tokens")
    return frame.rename(columns={"tokens": "images"})


def data_word(paths: list[Path]) -> str | None:
    """What the tables call the data that a model has seen: tokens or images, None without."""
    columns = {c for path in paths for c in read_table(path).columns}
    return next((word for word in ("tokens", "images") if word in columns), None)


def stated(paths: list[Path], key: str) -> str | None:
    """What the .json beside every table says of its loss or compute, if all say the same.

    That is how this package's own tables are known; of another's nothing is claimed.
    """
    said = set()
    for path in paths:
        try:
            facts = read_json(path.with_suffix(".json"))
        except JstarError:  # there is none, or it is another's
            return None
        said.add(facts.get(key) if isinstance(facts, dict) else None)
    return said.pop() if len(said) == 1 else None


def _check_rows(frame: pd.DataFrame, path: Path) -> None:
    for column in [c for c in NUMBERS if c in frame]:
        _numeric(frame, column, path)
    numbers = pd.to_numeric(frame["sigma"].astype(str).replace(TOTAL, "1"), errors="coerce")
    _refuse(frame, ~(numbers > 0), path, "sigma", "allowed are numbers above 0 and the word total")
    frame["sigma"] = [sigma_key(v) for v in frame["sigma"]]
    for column in ("params", "flops", "loss"):
        _refuse(frame, frame[column].isna(), path, column, "a number is needed")
        _refuse(frame, ~np.isfinite(frame[column]), path, column, "a finite number is needed")
        _refuse(frame, frame[column] <= 0, path, column, "it must be above 0")
    for column in [c for c in ("images", "tokens") if c in frame]:
        _refuse(frame, frame[column] <= 0, path, column, "it must be above 0")
    if "gap" in frame:
        hint = (
            "a direct gap is a mean of squares, 0 or above; leave the column out to use loss - J*"
        )
        _refuse(frame, frame["gap"] < 0, path, "gap", hint)
    for column in ("loss_se", "gap_se"):
        if column in frame:
            _refuse(frame, frame[column] < 0, path, column, "a standard error is 0 or above")


def _check_duplicates(frame: pd.DataFrame) -> None:
    key = [c for c in ("run", "params", "flops", "ema", "split", "sigma") if c in frame]
    repeated = frame.duplicated(key)
    if repeated.any():
        row = frame[repeated].iloc[0]
        raise JstarError(
            f"{row['source']}: line {row['line']} repeats run '{row['run']}' at flops = "
            f"{row['flops']:g}, sigma = {row['sigma']}; every measurement may appear once"
        )


def _numeric(frame: pd.DataFrame, column: str, path: Path) -> None:
    """Make a column numeric; a cell with text is named."""
    numbers = pd.to_numeric(frame[column], errors="coerce")
    _refuse(frame, numbers.isna() & frame[column].notna(), path, column, "a number is needed")
    frame[column] = numbers


def _refuse(
    frame: pd.DataFrame, bad: "pd.Series[bool]", path: Path, column: str, allowed: str
) -> None:
    """One sentence about the first bad row; lines count from 1 with the header."""
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        raise JstarError(
            f"{path}: line {row + 2}, column '{column}': found {frame[column].iloc[row]}, {allowed}"
        )


def select(
    losses: pd.DataFrame, *, split: str = "train", ema: float | None = None, min_images: int = 0
) -> pd.DataFrame:
    """The rows that are fitted: one split, one EMA length, no snapshots before `min_images`."""
    rows = losses
    if "split" in rows:
        rows = rows[rows["split"].isna() | (rows["split"] == split)]
    if "ema" in rows and rows["ema"].notna().any():
        chosen = float(rows["ema"].dropna().iloc[0]) if ema is None else ema
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
