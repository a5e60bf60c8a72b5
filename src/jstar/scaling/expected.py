"""What a planned study would find: studies of its very design, simulated and judged.

Two worlds, the true law with the floor J* and the same without it. Every study is drawn with the
stated errors and goes through `jstar.scaling.verdict.judge`, as a noise scale of `jstar fit` does:
it knows no more of its errors than its own losses show.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from jstar.constants import CONFIDENCE
from jstar.errors import JstarError
from jstar.pool import in_processes
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.joint import JointPoints, joint_points
from jstar.scaling.laws import Array
from jstar.scaling.planning import QUIET
from jstar.scaling.verdict import JointScale, judge

WORLDS = {"optimal": "with the floor J*", "zero": "without a floor"}
DRAWS = 119  # from each law of a study: 3 of 120 are the tail of a 95 % test


@dataclass(frozen=True)
class Share:
    """A share of simulated studies. error: its standard error; that of one more hit and one more
    miss, since none of a dozen studies does not mean never."""

    value: float
    error: float

    @classmethod
    def of(cls, hits: NDArray[np.bool_] | list[bool]) -> "Share":
        """Of which studies it happened in."""
        count, some = len(hits), (sum(hits) + 1) / (len(hits) + 2)
        return cls(float(sum(hits) / count), float(np.sqrt(some * (1 - some) / count)))

    def __str__(self) -> str:
        return f"{self.value:.0%} ± {self.error:.0%}"


@dataclass(frozen=True)
class Expected:
    """What a planned study would find. verdicts: of every simulated study, by world.

    alpha: the true one. ends_S2: its interval under the floor J* in every study with that floor.
    """

    alpha: float
    verdicts: dict[str, list[str]]
    ends_S2: Array

    def share(self, world: str, *verdicts: str) -> Share:
        """How often one of the verdicts comes out in the world `zero` or `optimal`."""
        return Share.of([verdict in verdicts for verdict in self.verdicts[world]])

    @property
    def width(self) -> float:
        """Of alpha's interval, the median."""
        return float(np.median(self.ends_S2[:, 1] - self.ends_S2[:, 0]))

    def power(self, against: float) -> Share:
        """How often the interval for alpha leaves `against` out."""
        return Share.of((against < self.ends_S2[:, 0]) | (against > self.ends_S2[:, 1]))


def expect(
    design: StudyDesign, truth: JointTruth, *, confidence: float = CONFIDENCE,
    studies: int = 12, seed: int = 0, worlds: tuple[str, ...] = tuple(WORLDS),
) -> Expected:  # fmt: skip
    """Verdicts and alpha of `studies` studies with the floor J*, and verdicts without a floor.

    truth: the law with the floor J*; without it J* is the same share of the smallest loss. Raises
    JstarError where the design has no joint law.
    """
    points = _points(design, replace(truth, **QUIET), 0, 0)
    if isinstance(points, str):
        raise JstarError(f"no verdict of this design: {points}")
    laws = {"optimal": truth, "zero": without_floor(design, truth)}
    found = {w: _judged(design, laws[w], confidence, studies, seed, WORLDS[w]) for w in worlds}
    known = [scale.laws["optimal"] for scale in found["optimal"]]
    ends_S2 = np.array([(law.low["alpha"], law.high["alpha"]) for law in known])
    verdicts = {world: [scale.verdict for scale in scales] for world, scales in found.items()}
    return Expected(truth.alpha, verdicts, ends_S2)


def without_floor(design: StudyDesign, truth: JointTruth) -> JointTruth:
    """The same law without its floor J*, which stays the same share of the smallest loss.

    Errors keep their size in units of the smallest loss, of which the gap is now all.
    """
    losses, curve = simulate_design(design, replace(truth, **QUIET), 0)
    share = float(curve["loss"].iloc[0] / losses["loss"].min())
    return replace(
        truth, floor=0.0, optimal=share, run_noise=truth.run_noise * (1 - share),
        snapshot_noise=truth.snapshot_noise * (1 - share),
    )  # fmt: skip


@cache  # one exponent against another asks for the same studies as the verdict
def _judged(
    design: StudyDesign, truth: JointTruth, confidence: float, studies: int, seed: int, what: str
) -> list[JointScale]:
    tasks = [(design, truth, confidence, seed, index) for index in range(studies)]
    return in_processes(_study, tasks, f"simulate {what}", "studies")


def _study(
    design: StudyDesign, truth: JointTruth, confidence: float, seed: int, index: int
) -> JointScale:
    """One study, judged."""
    return judge(_points(design, truth, seed, index), confidence, DRAWS, index)


def _points(design: StudyDesign, truth: JointTruth, seed: int, index: int) -> JointPoints | str:
    losses, curve = simulate_design(design, truth, seed, index)
    optimal = float(curve["loss"].iloc[0]), float(curve["stderr"].iloc[0])
    return joint_points(losses, "loss", optimal, "size")
