"""Where the loss is least over the learning rate: which rate to try next, and the minimum.

Near it ln loss is a parabola in ln rate: of the best rate that was tried and its two neighbours.
"""

from dataclasses import dataclass

import numpy as np

from jstar.scaling.isoflop import parabola
from jstar.scaling.laws import Array

NEAR = 1.1  # a rate tried within this factor of the minimum says what the minimum costs
REACH = 30.0  # factor from the prior beyond which none is tried
MOST = 12  # trials of one batch
RESAMPLES = 1000
INSIDE, AT_EDGE = "inside", "at the edge"


@dataclass(frozen=True)
class Minimum:
    """The best learning rate, to 2 significant digits, and its loss by the parabola.

    low, high: its 95 % interval over the draws that measured the trials. cost: share of the loss
    that another rate within reach of the error might still save. status: inside, or at the edge
    of the rates that were tried (then cost is what the last step saved).
    """

    rate: float
    low: float
    high: float
    loss: float
    cost: float
    status: str


def rounded(rate: float, digits: int) -> float:
    """A rate to so many significant digits: the same name and number on every machine."""
    return float(f"{rate:.{digits}g}")


def next_rate(loss_of: dict[float, float], prior: float, factors: list[float]) -> float | None:
    """The rate to try after those in `loss_of` (infinite where training diverged), or None.

    First prior x factors; then on beyond an edge while the best lies there, between the best and
    a rate that diverges, and at the parabola's minimum where nothing near it was tried.
    """
    for factor in factors:
        if (rate := rounded(prior * factor, 3)) not in loss_of:
            return rate
    rate_T = sorted(loss_of)
    loss_T = [loss_of[rate] for rate in rate_T]
    k, last = int(np.argmin(loss_T)), len(rate_T) - 1
    if len(rate_T) >= MOST:
        return None
    if k == 0 or not np.isfinite(loss_T[k]):
        wanted = rate_T[0] ** 2 / rate_T[1]
    elif k == last:
        wanted = rate_T[last] ** 2 / rate_T[last - 1]
    elif not np.isfinite(loss_T[k + 1]):
        wanted = float(np.sqrt(rate_T[k] * rate_T[k + 1]))
    else:
        near = slice(k - 1, k + 2)
        x, _, _ = vertex(np.log(rate_T[near]), np.log(loss_T[near])[None])
        wanted = rounded(float(np.exp(x[0])), 2)
    close = min(abs(np.log(wanted / rate)) for rate in rate_T) < np.log(NEAR)
    far = abs(np.log(wanted / prior)) > np.log(REACH)
    return None if close or far else rounded(wanted, 3)


def vertex(x_3: Array, y_Q3: Array) -> tuple[Array, Array, Array]:
    """Place, height and second derivative of the parabola through three points, each [Q].

    The place is kept between the outer points; where the parabola has no minimum it is the lower
    of these, with its height and the derivative 0.
    """
    c0_Q, c1_Q, c2_Q = parabola(x_3, y_Q3).T
    lower_Q = np.where(y_Q3[:, 0] < y_Q3[:, 2], 0, 2)
    free_Q = -c1_Q / np.where(c2_Q > 0, 2 * c2_Q, np.nan) + x_3.mean()
    place_Q = np.where(c2_Q > 0, np.clip(free_Q, x_3[0], x_3[2]), x_3[lower_Q])
    u_Q = place_Q - x_3.mean()
    return place_Q, c0_Q + c1_Q * u_Q + c2_Q * u_Q**2, 2 * np.maximum(c2_Q, 0.0)


def find_minimum(rate_T: Array, gap_TM: Array, floor: float, seed: int) -> Minimum:
    """The minimum of loss = floor + mean gap over increasing rates.

    gap_TM: of every trial on the same M draws, infinite where it diverged. The interval resamples
    these draws. What is still to be had is judged by the parabola at half a grid step from its
    minimum, or at half the interval, if that is wider.
    """
    loss_T = floor + gap_TM.mean(axis=1)
    k = int(np.argmin(loss_T))
    seen = loss_T[max(k - 1, 0) : k + 2]
    if len(seen) < 3 or not np.isfinite(seen).all():
        beside = [value for value in seen if np.isfinite(value) and value != loss_T[k]]
        cost = min(beside, default=np.nan) / loss_T[k] - 1
        rate = rounded(float(rate_T[k]), 3)
        return Minimum(rate, np.nan, np.nan, float(loss_T[k]), float(cost), AT_EDGE)
    x_3, near_3M = np.log(rate_T[k - 1 : k + 2]), gap_TM[k - 1 : k + 2]
    place, height, bend = vertex(x_3, np.log(seen)[None])
    rng = np.random.default_rng([seed, gap_TM.shape[1]])
    draws = gap_TM.shape[1]
    count_QM = rng.multinomial(draws, np.full(draws, 1 / draws), size=RESAMPLES)
    drawn_Q = vertex(x_3, np.log(floor + count_QM @ near_3M.T / draws))[0]
    low, high = np.exp(np.quantile(drawn_Q, [0.025, 0.975]))
    rate = rounded(float(np.exp(place[0])), 2)
    half = max((x_3[2] - x_3[0]) / 4, np.log(high / low) / 2)
    loss = np.exp(height[0] + bend[0] * (np.log(rate) - place[0]) ** 2 / 2)
    return Minimum(rate, float(low), float(high), float(loss), float(bend[0] * half**2 / 2), INSIDE)
