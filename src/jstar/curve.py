"""The optimal-loss curve: J* at each noise scale, its error, and what follows from it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from jstar.errors import JstarError
from jstar.noise import Process, target_ratio, total_weights

CRITICAL_SHARE = 1e-3  # of the variance: where J* counts as positive

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OptimalLoss:
    """J*(sigma) of one data distribution: mean squared error per dimension, in the data scale.

    stderr: standard error. lower, upper: 95 % interval of the exact estimators; for the subset
    estimators a bound from below (DOL) and above (SNIS), each with its error. correlation_SS:
    correlation of the errors (the same draws serve every noise scale). variance: J* at infinite
    sigma. log_count: ln N, or its mean over classes. ended: what ended the sampling.
    """

    sigma: Floats
    loss: Floats
    stderr: Floats
    lower: Floats
    upper: Floats
    correlation_SS: Floats = field(repr=False)
    form: tuple[str, ...] = field(repr=False)
    estimator: str
    queries: int
    count: int
    dim: int
    variance: float
    log_count: float
    ended: str = "queries"
    subset: int | None = None
    repeats: int = 1

    @property
    def closure(self) -> tuple[float, float]:
        """(1/2 int J* d(sigma^-2) with J* summed over dimensions, ln N), in nats.

        They are equal for N distinct points when the grid reaches from J* = 0 to J* = variance
        (I-MMSE: Guo, Shamai, Verdu 2005). Quadrature: monotone cubics in ln sigma; above the grid
        J* is continued towards the variance.
        """
        return self._mutual_information(), self.log_count

    def _mutual_information(self) -> float:
        log_s = np.log(self.sigma)
        value = self.dim * self._monotone() / self.sigma**2
        if len(value) < 2:
            return float("nan")
        inside = float(PchipInterpolator(log_s, value).integrate(log_s[0], log_s[-1]))
        # Above the grid 1/J* is about linear in gamma = sigma^-2 (exactly so for one variance).
        last, gamma = self.dim * float(self._monotone()[-1]), float(self.sigma[-1]) ** -2
        return inside + 0.25 * gamma * (self.dim * self.variance + last)

    def _monotone(self) -> Floats:
        """The nearest non-decreasing curve (J* is one), weighted by the errors."""
        floor = 1e-9 * self.variance if self.variance > 0 else 1.0
        return isotonic(self.loss, 1 / np.maximum(self.stderr, floor) ** 2)

    @property
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

    def at(self, sigma: Any) -> tuple[Floats, Floats]:
        """(J*, standard error) between the grid's noise scales, monotone in sigma.

        Monotone cubic in ln sigma; the error is that of the neighbours plus the distance between
        cubic and straight line, a quarter of it. Raises JstarError outside the grid.
        """
        wanted = np.atleast_1d(np.asarray(sigma, dtype=np.float64))
        low, high = self.sigma[0], self.sigma[-1]
        outside = (wanted < low * (1 - 1e-9)) | (wanted > high * (1 + 1e-9))
        if outside.any():
            raise JstarError(
                f"sigma = {wanted[outside][0]:g} lies outside the curve, "
                f"allowed is {low:g} to {high:g}"
            )
        log_s, log_w = np.log(self.sigma), np.log(np.clip(wanted, low, high))
        value = self._monotone()
        if len(value) == 1:
            return np.full(wanted.shape, value[0]), np.full(wanted.shape, self.stderr[0])
        cubic = np.maximum(PchipInterpolator(log_s, value)(log_w), 0.0)
        straight = np.interp(log_w, log_s, value)
        error = np.interp(log_w, log_s, self.stderr)
        return cubic, np.hypot(error, 0.25 * np.abs(cubic - straight))

    def total(self, process: Process, weights: Floats | None = None) -> tuple[float, float]:
        """(total J*, standard error): sum_s W_s J*(sigma_s), W of `jstar.noise.total_weights`."""
        weight_S = total_weights(process, self.sigma) if weights is None else weights
        covariance = self.correlation_SS * np.outer(self.stderr, self.stderr)
        return float(weight_S @ self.loss), float(np.sqrt(weight_S @ covariance @ weight_S))

    def converted(self, process: Process | str, target: str) -> tuple[Floats, Floats]:
        """(J*, standard error) of another target than x0, as `jstar.noise.target_ratio`."""
        ratio = np.asarray(target_ratio(process, target, self.sigma))
        return ratio * self.loss, ratio * self.stderr

    def to_frame(self) -> pd.DataFrame:
        """One row a noise scale: sigma, loss, stderr, lower, upper, then how it was made."""
        return pd.DataFrame(
            {
                "sigma": self.sigma,
                "loss": self.loss,
                "stderr": self.stderr,
                "lower": self.lower,
                "upper": self.upper,
                "estimator": self.estimator,
                "form": list(self.form),
                "queries": self.queries,
                "count": self.count,
            }
        )

    def facts(self) -> dict[str, Any]:
        """What the table's provenance says beside it."""
        got, expected = self.closure
        return {
            "estimator": self.estimator,
            "queries": self.queries,
            "count": self.count,
            "dim": self.dim,
            "variance": self.variance,
            "closure": got,
            "log_count": expected,
            "critical_sigma": self.critical_sigma,
            "ended": self.ended,
            "subset": self.subset,
            "repeats": self.repeats,
            "correlation": np.round(self.correlation_SS, 6),
        }


def isotonic(value_S: Floats, weight_S: Floats) -> Floats:
    """Nearest non-decreasing sequence in weighted least squares, not below 0."""
    from scipy.optimize import isotonic_regression

    fitted = isotonic_regression(value_S, weights=weight_S).x
    return np.maximum(np.asarray(fitted, dtype=np.float64), 0.0)
