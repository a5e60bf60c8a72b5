"""Where the loss is least over the learning rate: which rate to try next, and the minimum.

Near it ln loss is a parabola in ln rate, on which a trial lies but for its luck: on the digits a
run at a slightly other rate finds its structure earlier or later, and its loss scatters by half a
per cent, many times the error of measuring it. So the parabola goes through all trials near the
best by least squares, and what it leaves says how well its minimum is known.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.isoflop import parabola
from jstar.scaling.laws import Array

WINDOW = 3.0  # factor about the best rate within which trials lie on one parabola
NEAR = 1.2  # a rate tried within this factor of the minimum says what the minimum costs
REACH = 30.0  # factor from the prior beyond which none is tried
MOST = 12  # trials of one batch
# Scatter of a trial's ln loss about the parabola (benchmarks/tune.py), and how many trials of this
# very size that knowledge is worth.
SCATTER, WORTH = 0.005, 4
RESAMPLES = 2000
INSIDE, AT_EDGE = "inside", "at the edge"


@dataclass(frozen=True)
class Minimum:
    """The best learning rate, to 2 significant digits, and its loss by the parabola.

    low, high: its 95 % interval. scatter: of a trial's ln loss. cost: share of the loss that
    another rate might still save, root mean square. status: inside, or at the edge of the rates
    that were tried (then nothing is known of an interval, and cost is what the last step saved).
    """

    rate: float
    low: float
    high: float
    loss: float
    scatter: float
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
    rate_T = np.array(sorted(loss_of))
    loss_T = np.array([loss_of[rate] for rate in rate_T])
    k, last = int(np.argmin(loss_T)), len(rate_T) - 1
    if k == 0 or not np.isfinite(loss_T[k]):
        wanted = rate_T[0] ** 2 / rate_T[1]
    elif k == last:
        wanted = rate_T[last] ** 2 / rate_T[last - 1]
    elif not np.isfinite(loss_T[k + 1]):
        wanted = np.sqrt(rate_T[k] * rate_T[k + 1])
    else:
        near = _near(rate_T, loss_T)
        wanted = np.exp(vertex(np.log(rate_T[near]), np.log(loss_T[near])[None])[0][0])
    close = np.abs(np.log(rate_T / wanted)).min() < np.log(NEAR)
    far = abs(np.log(wanted / prior)) > np.log(REACH)
    return None if close or far or len(rate_T) >= MOST else rounded(float(wanted), 3)


def _near(rate_T: Array, loss_T: Array) -> NDArray[np.bool_]:
    """Trials that say where the minimum is: those near the best, its neighbours at least."""
    k = int(np.argmin(loss_T))
    near = np.abs(np.log(rate_T / rate_T[k])) <= np.log(WINDOW)
    near[max(k - 1, 0) : k + 2] = True
    return np.asarray(near & np.isfinite(loss_T))


def vertex(x_T: Array, y_QT: Array) -> tuple[Array, Array, Array]:
    """Place, height and second derivative of least-squares parabolas, each [Q].

    The place is kept between the outer points; where a parabola has no minimum it is the lower of
    these, with its height there and the derivative 0.
    """
    c0_Q, c1_Q, c2_Q = parabola(x_T, y_QT).T
    low, high = x_T.min() - x_T.mean(), x_T.max() - x_T.mean()
    free_Q = -c1_Q / np.where(c2_Q > 0, 2 * c2_Q, np.nan)
    falls_Q = c1_Q + c2_Q * (low + high) < 0
    u_Q = np.where(c2_Q > 0, np.clip(free_Q, low, high), np.where(falls_Q, high, low))
    return u_Q + x_T.mean(), c0_Q + c1_Q * u_Q + c2_Q * u_Q**2, 2 * np.maximum(c2_Q, 0.0)


def find_minimum(rate_T: Array, loss_T: Array, seed: int) -> Minimum:
    """The minimum over increasing rates; a loss is infinite where training diverged.

    The interval is that of parabolas through trials with other luck, as large as these trials and
    `SCATTER` say; the cost is the root mean square of what their own minima would save.
    """
    k = int(np.argmin(loss_T))
    beside = loss_T[max(k - 1, 0) : k + 2]
    if len(beside) < 3 or not np.isfinite(beside).all():
        others = [value for value in beside if np.isfinite(value) and value > loss_T[k]]
        cost = min(others, default=np.nan) / loss_T[k] - 1
        return Minimum(float(rate_T[k]), np.nan, np.nan, float(loss_T[k]), np.nan, cost, AT_EDGE)
    near = _near(rate_T, loss_T)
    x_T, y_T = np.log(rate_T[near]), np.log(loss_T[near])
    place, height, bend = (float(part[0]) for part in vertex(x_T, y_T[None]))
    left_T = y_T - _parabola_at(x_T, y_T[None], x_T)[0]
    if not bend:  # no parabola opens upwards: the best trial stands
        place = float(x_T[np.argmin(y_T)])
        height = float(_parabola_at(x_T, y_T[None], np.array([place]))[0, 0])
    freedom = len(x_T) - 3 + WORTH
    scatter = float(np.sqrt((left_T @ left_T + WORTH * SCATTER**2) / freedom))
    rng = np.random.default_rng([seed, len(x_T)])
    scale_Q1 = scatter * np.sqrt(freedom / rng.chisquare(freedom, (RESAMPLES, 1)))
    drawn_QT = y_T - left_T + scale_Q1 * rng.standard_normal((RESAMPLES, len(x_T)))
    place_Q, height_Q, _ = vertex(x_T, drawn_QT)
    saved_Q = _parabola_at(x_T, drawn_QT, np.array([place]))[:, 0] - height_Q
    low, high = np.quantile(place_Q, [0.025, 0.975])
    rate = rounded(float(np.exp(place)), 2)
    loss = np.exp(height + bend * (np.log(rate) - place) ** 2 / 2)
    cost = float(np.sqrt(np.mean(saved_Q**2)))
    ends = float(np.exp(low)), float(np.exp(high))
    return Minimum(rate, *ends, float(loss), scatter, cost, INSIDE)


def _parabola_at(x_T: Array, y_QT: Array, at_T: Array) -> Array:
    """Values at `at_T` of the least-squares parabolas through (x, y), [Q, T]."""
    u_T = at_T - x_T.mean()
    return np.asarray(parabola(x_T, y_QT) @ np.stack([np.ones_like(u_T), u_T, u_T**2]))
