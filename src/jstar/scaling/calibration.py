"""What a study's own design can tell: its laws drawn again, and fitted by the same code.

Each law that was fitted is a world. Studies of that world have the study's own sizes, images,
snapshots and seeds, and errors as large and as correlated as the study shows, redrawn from what is
known of them; sizes whose learning rate is known to some error are lower by what that may cost.
How far a floor lies from 0 and from J* in these studies says how far is far; studies
whose law is redrawn too say how often the resulting verdict would be wrong.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from jstar.scaling.joint import FLOORS, FloorFits, JointPoints, exponents, fit_floors
from jstar.scaling.joint_many import Luck, components, draw_errors, explained
from jstar.scaling.laws import Array

FEW = 10  # studies: a p-value that fewer stand for is estimated anew from more


@dataclass(frozen=True)
class World:
    """Q studies drawn from one fitted law: their fits, and the law [Q, 5] behind each.

    r2: of each floor's law, [Q] (`joint_many.explained`).
    """

    fits: FloorFits
    truth_QK: Array
    optimal_Q: Array
    r2: dict[str, Array]


@dataclass(frozen=True)
class Worlds:
    """null: studies of exactly the fitted law. wide: of laws as uncertain as the fit."""

    null: dict[str, World]
    wide: dict[str, World]


@dataclass(frozen=True)
class Shared:
    """What simulated studies of all noise scales have in common: a seed, and how much of it.

    share: of the variance of a run's errors; what the measured errors' correlation says.
    """

    seed: int
    share: float


def draw_worlds(
    points: JointPoints, fits: FloorFits, power: float, draws: int, seed: int,
    floors: tuple[str, ...], shared: Shared | None = None,
) -> Worlds:  # fmt: skip
    """Studies from the laws of one study: null of the floors, wide of those that are tested."""
    luck = Luck(np.random.default_rng([seed, len(points.design), 5]))
    if shared is not None:
        common = np.random.default_rng([shared.seed, len(points.design), 7])
        luck = replace(luck, common=common, share=shared.share)
    null, wide = {}, {}
    for floor in floors:
        exact = np.repeat(fits.theta[floor], draws, axis=0)
        null[floor] = _world(points, fits, floor, exact, power, luck)
        if floor != "free":
            redrawn = null[floor].fits.theta[floor].copy()
            redrawn[:, 4] = exact[:, 4]
            wide[floor] = _world(points, fits, floor, redrawn, power, luck)
    return Worlds(null, wide)


def with_more_nulls(
    worlds: Worlds, draws: dict[str, int], points: JointPoints, fits: FloorFits, power: float,
    seed: int,
) -> Worlds:  # fmt: skip
    """The same with so many other null studies of these floors' laws.

    Of none of those that came before, so that a p-value which was small by chance starts anew.
    """
    null = {}
    for floor, count in draws.items():
        luck = Luck(np.random.default_rng([seed, len(points.design), 6, FLOORS.index(floor)]))
        exact = np.repeat(fits.theta[floor], count, axis=0)
        null[floor] = _world(points, fits, floor, exact, power, luck)
    return replace(worlds, null={**worlds.null, **null})


def _world(
    points: JointPoints, fits: FloorFits, floor: str, truth_QK: Array, power: float,
    luck: Luck,
) -> World:  # fmt: skip
    """Draw a study from each law and fit it."""
    design, draws, k = points.design, len(truth_QK), 5 if floor == "free" else 4
    parts, _ = components(design, points.loss_P[None], fits.theta[floor], fits.white, k)
    weight_P = fits.white.weight_QP[0]
    error_QP = draw_errors(design, fits.white, parts, len(design) - k, weight_P, draws, luck)
    if points.excess_P.any():  # a size may only be worse than its best rate would make it
        _, size_P = np.unique(design.ln_n_P, return_inverse=True)
        reach = np.abs(luck.normal((draws, size_P.max() + 1)))
        error_QP = error_QP - points.excess_P * reach[:, size_P]
    loss_QP = truth_QK[:, 4:5] + design.gap(truth_QK) + error_QP
    shift = points.optimal_error * luck.own.standard_normal(draws)
    optimal_Q = (points.optimal if np.isfinite(points.optimal) else 0.0) + shift
    start = fits.theta[floor][:1]
    mean = start[:, 4:5] + design.gap(start)
    begin = {f: fits.theta[f][0] for f in fits.theta} | {"free": start[0]}
    # Where each law ends up in this world, so that every study starts near its answer.
    typical = fit_floors(points, mean, optimal_Q[:1] - shift[:1], begin, power, rounds=1)
    starts = {f: typical.theta[f][0] for f in typical.theta} | {floor: start[0], "free": start[0]}
    found = fit_floors(points, loss_QP, optimal_Q, starts, power)
    r2 = {f: explained(design, loss_QP, theta) for f, theta in found.theta.items()}
    return World(found, truth_QK, optimal_Q, r2)


@dataclass(frozen=True)
class Tails:
    """How extreme a study is among those of a world, [Q] (or of one study, [1]).

    zero_high, zero_low: share of studies without a floor whose free floor lies as far above, below
    0. optimal_high, optimal_low: share of studies with the floor J* whose free floor lies as far
    above, below J*.
    """

    zero_high: Array
    zero_low: Array
    optimal_high: Array
    optimal_low: Array


def tails(worlds: Worlds, fits: FloorFits) -> Tails:
    """Monte Carlo p-values, never exactly 0; 1 where there is no J*."""
    zero = np.sort(worlds.null["zero"].fits.from_zero_Q)
    high, low = _shares(zero, fits.from_zero_Q)
    if "optimal" not in worlds.null:
        return Tails(high, low, np.ones_like(high), np.ones_like(high))
    optimal = np.sort(worlds.null["optimal"].fits.from_optimal_Q)
    return Tails(high, low, *_shares(optimal, fits.from_optimal_Q))


def _shares(null: Array, seen_Q: Array) -> tuple[Array, Array]:
    """Share of the sorted null at or above, and at or below, each value."""
    count = len(null)
    above = count - np.searchsorted(null, seen_Q, side="left")
    below = np.searchsorted(null, seen_Q, side="right")
    return (1 + above) / (1 + count), (1 + below) / (1 + count)


def fine_tails(worlds: Worlds, fits: FloorFits) -> Tails:
    """`tails`, where fewer than FEW studies stand for one by the normal law of their root.

    For studies that are only counted: a verdict draws more of them instead.
    """
    counted = tails(worlds, fits)
    found = {}
    for floor, root_Q in (("zero", fits.from_zero_Q), ("optimal", fits.from_optimal_Q)):
        null = worlds.null[floor].fits
        known = null.from_zero_Q if floor == "zero" else null.from_optimal_Q
        away_Q = (root_Q - known.mean()) / known.std()
        for side, p_Q in (("high", ndtr(-away_Q)), ("low", ndtr(away_Q))):
            plain = getattr(counted, f"{floor}_{side}")
            found[f"{floor}_{side}"] = np.where(plain * len(known) < FEW, p_Q, plain)
    return Tails(**found)


def misfit_shares(worlds: Worlds, fits: FloorFits, floor: str) -> Array:
    """Share of a law's own studies that bend away from it as much as each study does, [Q]."""
    return _shares(np.sort(worlds.null[floor].fits.misfit[floor]), fits.misfit[floor])[0]


def interval(values_Q: Array, confidence: float) -> tuple[float, float]:
    """Quantiles between which one more draw lies with probability `confidence`."""
    low, high = np.quantile(
        values_Q, [0.5 - confidence / 2, 0.5 + confidence / 2], method="weibull"
    )
    return float(low), float(high)


def alpha_coverage(world: World, floor: str, confidence: float) -> float:
    """Share of the studies of a world whose interval for alpha would hold their own alpha.

    A study's interval spans the quantiles of the estimates from laws like the one it found; here
    of those among the world's laws whose exponents are nearest to its estimate.
    """
    true_Q, found_Q = exponents(world.truth_QK)[0], exponents(world.fits.theta[floor])[0]
    near = np.argsort(np.abs(found_Q[:, None] - true_Q), axis=1)[:, : max(len(true_Q) // 3, 50)]
    levels = [0.5 - confidence / 2, 0.5 + confidence / 2]
    low_Q, high_Q = found_Q + np.quantile(
        (found_Q - true_Q)[near], levels, axis=1, method="weibull"
    )
    return float(((low_Q <= true_Q) & (true_Q <= high_Q)).mean())
