"""Power-function averages of the weights, and one of any length from those stored.

The average of exponent g after time T is the integral of the weights with the profile
p(t) = (g + 1) t^g / T^(g + 1), 0 < t <= T. `jstar.train.ema` is that integral exactly, the weights
after step n lasting from n - 1 to n, so time may be counted in steps or in images. A sum of stored
averages is an average whose profile is the sum of theirs: its coefficients are those of the
profiles (arXiv 2312.02696, section 3, algorithm 3; here they also sum to 1, so that what the
weights have in common is kept).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jstar.errors import JstarError

Array = NDArray[np.float64]

LONGEST = 12**-0.5  # relative length of the plain mean, g = 0
WORST = 0.025  # |p_sum - p| / |p| (L2) up to which a sum stands for the average: docs/averages.md
STEP = 0.001  # of the lengths named as possible
NEGLIGIBLE = 1e-10  # relative singular value: nearly equal profiles would get huge coefficients


def power_exponent(relative_std: float) -> float:
    """g of the profile p(t) ~ t^g whose standard deviation is `relative_std` of the run.

    The largest root of g^3 + 7 g^2 + (16 - 1/s^2) g + 12 - 1/s^2 (algorithm 2 of the source).
    Raises JstarError beyond the length of the plain mean.
    """
    if relative_std > LONGEST:
        raise JstarError(
            f"an average of length {relative_std:g} would weigh early steps most, allowed is up to "
            f"{LONGEST:.4f}, the plain mean"
        )
    inverse = relative_std**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


@dataclass(frozen=True)
class Stored:
    """What a run has kept up to the last of `times`: the averages of all `lengths` at each."""

    lengths: tuple[float, ...]
    times: tuple[float, ...]

    def combine(self, length: float) -> tuple[Array, float]:
        """The sum of stored averages nearest to that of `length` at the last time.

        Returns its coefficients [times, lengths], and |p_sum - p| / |p| in L2: the error that the
        sum has where the weights are nothing but white noise, relative to the noise averaged.
        """
        coefficients_KL, residual_L = self._solve([length])
        shape = (len(self.times), len(self.lengths))
        return coefficients_KL[:, 0].reshape(shape), float(residual_L[0])

    def require(self, length: float) -> None:
        """Raise JstarError, with the lengths that are possible, if `length` cannot be combined."""
        if not self.reaches(length):
            raise JstarError(
                f"an average of length {length:g} is not stored, and cannot be made of those of "
                f"{', '.join(f'{s:g}' for s in self.lengths)} at {len(self.times)} snapshots: "
                f"possible are {self._possible()}"
            )

    def reaches(self, length: float) -> bool:
        """Whether `length` is stored, or a sum stands for it."""
        if length in self.lengths:
            return True
        return length <= LONGEST and bool(self.combine(length)[1] <= WORST)

    def _possible(self) -> str:
        """The lengths that are possible, in multiples of STEP: `0.048 to 0.115`."""
        grid = np.arange(1, int(LONGEST / STEP) + 1) * STEP
        good = np.flatnonzero(self._solve(grid.tolist())[1] <= WORST)
        runs = np.split(good, np.flatnonzero(np.diff(good) > 1) + 1)
        words = [f"{grid[r[0]]:.3g} to {grid[r[-1]]:.3g}" for r in runs if len(r)]
        return ", ".join(words) or "those alone"

    def _solve(self, lengths: Sequence[float]) -> tuple[Array, Array]:
        """Coefficients [K, L] and relative residuals [L]."""
        gamma_K = np.tile([power_exponent(s) for s in self.lengths], len(self.times))
        time_K = np.repeat(np.asarray(self.times, dtype=float), len(self.lengths))
        gamma_L = np.array([power_exponent(s) for s in lengths])
        last = self.times[-1]
        norm_K = np.sqrt(_product(gamma_K, time_K, gamma_K, time_K))
        norm_L = np.sqrt(_product(gamma_L, last, gamma_L, last))
        gram_KK = _product(gamma_K[:, None], time_K[:, None], gamma_K, time_K)
        gram_KK /= norm_K[:, None] * norm_K
        right_KL = _product(gamma_K[:, None], time_K[:, None], gamma_L, last)
        right_KL /= norm_K[:, None] * norm_L
        # Unit profiles, and a Lagrange multiplier for the sum of the coefficients.
        sum_K = norm_K.min() / norm_K
        system = np.block([[gram_KK, sum_K[:, None]], [sum_K, np.zeros(1)]])
        right = np.vstack([right_KL, norm_K.min() / norm_L])
        unit_KL = np.linalg.lstsq(system, right, rcond=NEGLIGIBLE)[0][:-1]
        square_L = 1 + (unit_KL * (gram_KK @ unit_KL - 2 * right_KL)).sum(axis=0)
        return unit_KL / norm_K[:, None] * norm_L, np.sqrt(np.maximum(square_L, 0))


def _product(gamma: ArrayLike, time: ArrayLike, other: ArrayLike, until: ArrayLike) -> Array:
    """Inner product of two profiles, the integral of their product over time; broadcasts."""
    a, b = np.add(gamma, 1), np.add(other, 1)
    both = np.minimum(time, until)
    found: Array = a * b / (a + b - 1) * (both / time) ** a * (both / until) ** b / both
    return found
