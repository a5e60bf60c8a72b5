"""J*(sigma): the one class of the optimal-loss curve, read and written here; imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.constants import CRITICAL_SHARE, NORMAL_95
from jstar.errors import JstarError
from jstar.manifest import parents
from jstar.noise import Process, process, total_weights
from jstar.records import (
    CURVE_COLUMNS,
    facts_beside,
    fingerprint,
    numeric_column,
    provenance,
    read_any_table,
    refuse_rows,
    write_table,
)

if TYPE_CHECKING:
    from scipy.interpolate import PchipInterpolator

FACTS = ("estimator", "queries", "count", "dim", "variance", "log_count", "ended", "subset",
         "repeats")  # fmt: skip
WORDS = ("estimator", "ended")
SAME = 1e-6  # relative distance at which two noise scales are one

Floats = NDArray[np.float64]


def _monotone_cubic(x_S: Floats, y_S: Floats) -> "PchipInterpolator":
    from scipy.interpolate import PchipInterpolator  # half a second that training need not wait

    return PchipInterpolator(x_S, y_S)


@dataclass(frozen=True)
class OptimalLoss:
    """J*(sigma) of one data distribution: mean squared error per dimension, in the data scale.

    stderr: standard error. lower, upper: 95 % interval of the exact estimators; for the subset
    estimators a bound from below (DOL) and above (SNIS), each with its error. correlation_SS:
    correlation of the errors (the same draws serve every noise scale). variance: J* at infinite
    sigma. log_count: ln N, or its mean over classes. ended: what ended the sampling. origin: what
    curve.json says. What somebody else's table does not say is empty, 0 or not a number.
    """

    sigma: Floats
    loss: Floats
    stderr: Floats
    lower: Floats
    upper: Floats
    correlation_SS: Floats = field(repr=False)
    form: tuple[str, ...] = field(repr=False)
    variance: float
    estimator: str = ""
    queries: int = 0
    count: int = 0
    dim: int = 0
    log_count: float = float("nan")
    ended: str = "queries"
    subset: int | None = None
    repeats: int = 1
    origin: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def closure(self) -> tuple[float, float]:
        """(1/2 int J* d(sigma^-2) with J* summed over dimensions, ln N), in nats.

        They are equal for N distinct points when the grid reaches from J* = 0 to J* = variance
        (I-MMSE: Guo, Shamai, Verdu 2005). Quadrature: monotone cubics in ln sigma; above the grid
        J* is continued towards the variance.
        """
        if len(self.sigma) < 2:
            return float("nan"), self.log_count
        log_s = np.log(self.sigma)
        value = self.dim * self._monotone() / self.sigma**2
        inside = float(_monotone_cubic(log_s, value).integrate(log_s[0], log_s[-1]))
        # Above the grid 1/J* is about linear in gamma = sigma^-2 (exactly so for one variance).
        last, gamma = self.dim * float(self._monotone()[-1]), float(self.sigma[-1]) ** -2
        return inside + 0.25 * gamma * (self.dim * self.variance + last), self.log_count

    def _monotone(self) -> Floats:
        """The nearest non-decreasing curve (J* is one) not below 0, weighted by the errors."""
        from scipy.optimize import isotonic_regression

        floor = 1e-9 * self.variance if self.variance > 0 else 1.0
        weight_S = 1 / np.maximum(self.stderr, floor) ** 2
        return np.maximum(isotonic_regression(self.loss, weights=weight_S).x, 0.0)

    @cached_property
    def critical_sigma(self) -> float:
        """sigma*: the largest noise scale before J* becomes positive (0.1 % of the variance)."""
        value, level = self._monotone(), CRITICAL_SHARE * self.variance
        above = np.flatnonzero(value > level)
        if len(above) == 0 or above[0] == 0:
            return float(self.sigma[-1] if len(above) == 0 else self.sigma[0])
        k = int(above[0])
        share = (level - value[k - 1]) / (value[k] - value[k - 1])
        low, high = np.log(self.sigma[k - 1 : k + 1])
        return float(np.exp(low + share * (high - low)))

    def at(self, sigma: Any, *, inside: bool = False) -> tuple[Floats, Floats]:
        """(J*, standard error) at noise scales from the smallest of the table on.

        Inside: monotone cubic in ln sigma through the table. Above: 1/J* is linear in sigma^-2 up
        to the variance, exact for a Gaussian of one variance. The error is that of the neighbours
        plus a quarter of the distance to the straight line (above: to the last value). Raises
        JstarError below the table and, if `inside`, above it.
        """
        wanted = np.atleast_1d(np.asarray(sigma, dtype=np.float64))
        log_s, log_w = np.log(self.sigma), np.log(wanted)
        node, known = self._nodes(log_w), self.holds(wanted)
        outside = ~known & ((log_w < log_s[0]) | (log_w > log_s[-1]))
        if inside and outside.any():
            raise JstarError(
                f"optimal loss: sigma = {wanted[outside][0]:g} of the losses is not on the curve, "
                f"which is known from {self.sigma[0]:g} to {self.sigma[-1]:g}; estimate J* on the "
                "noise scales of the losses"
            )
        if (~known & (wanted < self.sigma[0])).any():
            raise JstarError(
                f"sigma = {wanted.min():g} lies below the curve, known from {self.sigma[0]:g} on"
            )
        # The table's own number at its noise scales, also where an error of sampling lets it fall:
        # fits and totals are linear in the table and its errors are theirs; the nearest
        # non-decreasing curve is biased and has others, so only closure and sigma* use it.
        far, last = ~known & (log_w > log_s[-1]), self.loss[-1]
        log_w = np.where(known, log_s[node], np.minimum(log_w, log_s[-1]))
        value = np.where(known, self.loss[node], np.maximum(self._cubic(log_w), 0.0))
        if far.any():
            top = max(self.variance, last)
            rest = (top - last) * (self.sigma[-1] / wanted[far]) ** 2
            value[far] = top / (1 + rest / last) if last > 0 else 0.0
        bend = value - np.interp(log_w, log_s, self.loss)
        return value, np.hypot(np.interp(log_w, log_s, self.stderr), 0.25 * bend)

    def holds(self, sigma: Any) -> NDArray[np.bool_]:
        """Which noise scales are those of the table, so that `at` need not interpolate."""
        log_w = np.log(np.atleast_1d(np.asarray(sigma, dtype=np.float64)))
        distance: Floats = np.abs(log_w - np.log(self.sigma)[self._nodes(log_w)])
        return distance < SAME

    @cached_property
    def _cubic(self) -> Callable[[Floats], Floats]:
        if len(self.sigma) < 2:
            return lambda log_sigma: np.full(log_sigma.shape, self.loss[0])
        return _monotone_cubic(np.log(self.sigma), self.loss)

    def _nodes(self, log_sigma: Floats) -> NDArray[np.intp]:
        """Index of the nearest noise scale of the table."""
        log_s = np.log(self.sigma)
        return np.searchsorted(0.5 * (log_s[1:] + log_s[:-1]), log_sigma)

    def total(self, proc: Process | str, sigma: Any = None) -> tuple[float, float]:
        """(total J*, standard error) on noise scales within the table, by default all of its own.

        sum_s W_s J*(sigma_s), W of `jstar.noise.total_weights`: E[w J*] cut to their range. Between
        noise scales of the table J* and its error are `at`'s, correlated as the nearest are.
        Raises JstarError at noise scales outside.
        """
        grid = self.sigma if sigma is None else np.asarray(sigma, dtype=np.float64)
        weight = total_weights(process(proc) if isinstance(proc, str) else proc, grid)
        loss, stderr = self.at(grid, inside=True)
        node, error = self._nodes(np.log(grid)), weight * stderr
        variance = float(error @ self.correlation_SS[np.ix_(node, node)] @ error)
        return float(weight @ loss), float(np.sqrt(max(variance, 0.0)))

    def to_frame(self) -> pd.DataFrame:
        """One row a noise scale: sigma, loss, stderr, lower, upper, then how it was made."""
        made = ("estimator", "form", "queries", "count")
        return pd.DataFrame({name: getattr(self, name) for name in (*CURVE_COLUMNS, *made)})

    @property
    def fingerprint(self) -> str:
        """Names the content: sigma, loss and stderr, to the digits of the written table."""
        columns = (self.sigma, self.loss, self.stderr)
        return fingerprint([[f"{v:.9g}" for v in column] for column in columns])

    def write(self, path: str | Path, *, card: Path | None = None, **origin: Any) -> None:
        """Write curve.csv and, beside it, curve.json: what is known of it, and `origin`.

        card: card.json of its data.
        """
        facts = {
            **{key: getattr(self, key) for key in FACTS},
            "closure": self.closure[0],
            "critical_sigma": self.critical_sigma,
            "fingerprint": self.fingerprint,
            "correlation": np.round(self.correlation_SS, 6),
        }
        facts |= parents(Path(path), [card])
        write_table(path, self.to_frame(), provenance(**origin, **facts))


def read_curve(path: str | Path) -> OptimalLoss:
    """Read a table of J*, anybody's: sigma, loss; perhaps stderr, or lower and upper; curve.json.

    What is not known: errors are 0, correlations 1 (the widest total), J* ends at its last value.
    Raises JstarError: one sentence with file, line and column.
    """
    path = Path(path)
    beside = path.with_suffix(".json")
    frame = read_any_table(path, ("sigma", "loss"))
    origin = facts_beside(path)
    if frame.empty:
        raise JstarError(f"{path}: holds no rows, at least one is needed")
    for column in [c for c in CURVE_COLUMNS if c in frame]:
        numeric_column(frame, column, path)
    for column in ("sigma", "loss"):
        refuse_rows(frame, ~np.isfinite(frame[column]), path, column, "a number is needed")
    refuse_rows(frame, frame["sigma"] <= 0, path, "sigma", "a noise scale is above 0")
    refuse_rows(frame, frame["loss"] < 0, path, "loss", "J* is a mean square, 0 or above")
    repeated = frame["sigma"].duplicated()
    refuse_rows(frame, repeated, path, "sigma", "every noise scale may appear once")
    frame = frame.sort_values("sigma")
    sigma, loss = frame["sigma"].to_numpy(dtype=float), frame["loss"].to_numpy(dtype=float)
    if "stderr" not in frame:
        width = frame["upper"] - frame["lower"] if {"lower", "upper"} <= set(frame) else 0.0
        frame["stderr"] = width / (2 * NORMAL_95)
    stderr = frame["stderr"].fillna(0.0).to_numpy(dtype=float)
    ends = {"lower": np.maximum(loss - NORMAL_95 * stderr, 0.0), "upper": loss + NORMAL_95 * stderr}
    given = {name: frame[name].to_numpy(dtype=float) for name in ends if name in frame}
    size = len(frame)
    correlation_SS = np.ones((size, size))
    if origin.get("correlation") is not None:
        try:
            correlation_SS = np.array(origin["correlation"], dtype=float)
        except (TypeError, ValueError) as error:
            raise JstarError(f"{beside}: correlation is no matrix of numbers ({error})") from error
        if correlation_SS.shape != (size, size):
            raise JstarError(
                f"{beside}: correlation has shape {correlation_SS.shape}, the curve has {size} "
                "noise scales"
            )
    known = {key: origin[key] for key in FACTS if origin.get(key) is not None}
    for key, value in known.items():
        if isinstance(value, str) != (key in WORDS) or not isinstance(value, str | int | float):
            raise JstarError(
                f"{beside}: {key} = {value!r}, a {'word' if key in WORDS else 'number'} is needed"
            )
    return OptimalLoss(
        sigma, loss, stderr, correlation_SS=correlation_SS,
        form=tuple(frame["form"]) if "form" in frame else ("",) * size,
        origin=origin, **{"variance": float(loss[-1]), **ends, **given, **known},
    )  # fmt: skip
