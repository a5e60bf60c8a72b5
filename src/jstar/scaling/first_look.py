"""What a verdict begins with: the laws of one noise scale, and how far its floors lie out.

How many studies its p-values need depends on those of the noise scales it is tested with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jstar.scaling.calibration import FEW, Shared, Tails, Worlds, draw_worlds, tails
from jstar.scaling.joint import FLOORS, FloorFits, JointFit, JointPoints

RESOLVED = 2  # times smaller than a verdict needs: the smallest p-value that studies can give
# By the law that is tested, the p-values that a verdict may rest on as rejections.
DECISIVE = {"zero": ("zero_high",), "optimal": ("optimal_high", "optimal_low")}


@dataclass(frozen=True)
class FirstLook:
    """What a verdict begins with: the laws of one noise scale, studies of them, and its tails.

    tails: [1], among `draws` studies of each law.
    """

    points: JointPoints
    fits: FloorFits
    power: float
    worlds: Worlds
    draws: int
    seed: int
    tails: Tails


def first_look(
    fit: JointFit | str, draws: int, seed: int, shared: Shared | None = None
) -> FirstLook | str:
    """Draw the studies of a noise scale that was fitted; `fit` may be why it was not.

    shared: what the simulated studies of all noise scales have in common.
    """
    if isinstance(fit, str):
        return fit
    points, fits, power = fit
    floors = FLOORS if np.isfinite(points.optimal) else ("zero", "free")
    worlds = draw_worlds(points, fits, power, draws, seed, floors, shared)
    return FirstLook(points, fits, power, worlds, draws, seed, tails(worlds, fits))


def more_nulls_needed(
    looks: Sequence[FirstLook | str], confidence: float
) -> list[dict[str, int]]:  # fmt: skip
    """How many further studies of which law each of these noise scales, tested together, needs.

    The smallest p-value that Q studies can give is 1 / (Q + 1). Among m noise scales one alone
    must reach level / m, k of them that are as small only k level / m (`adjust_verdicts`). A small
    p-value that cannot, or that a few studies stand for, is estimated anew from as many as it
    takes, of none of the first; both estimates are valid, and the second is taken only where the
    first was small.
    """
    level = (1 - confidence) / 2
    tested = [k for k, look in enumerate(looks) if not isinstance(look, str)]
    found = [vars(look.tails) for look in looks if not isinstance(look, str)]
    more: list[dict[str, int]] = [{} for _ in looks]
    for floor, names in DECISIVE.items():
        for name in names:
            alike = sum(float(p[name][0]) <= level / RESOLVED for p in found)
            alone = int(np.ceil(RESOLVED * len(found) / level))
            for k, p in zip(tested, found, strict=True):
                look, value = looks[k], float(p[name][0])
                assert not isinstance(look, str)
                if value * look.draws >= FEW or floor not in look.worlds.wide:
                    continue
                none = value * (look.draws + 1) < 1.5  # no study lies as far out
                needed = -(-alone // max(alike, 1)) if none else alone
                if needed > look.draws:
                    more[k][floor] = max(needed, more[k].get(floor, 0))
    return more
