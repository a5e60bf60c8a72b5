"""Is a floor needed, and is it J*? One verdict a noise scale, with how often it would be wrong.

corrected   a floor is needed and J* is not excluded: J - J* = beta F^alpha
above       a floor is needed, and a larger one than J*
raw         no floor is needed and J* is excluded: J = beta F^alpha
undecided   the design cannot tell, or no law holds

All rest on the joint law (`jstar.scaling.joint`) and on studies drawn from it in the study's own
design (`jstar.scaling.calibration`); a verdict that these would call wrongly in more than
`WRONG` of cases is undecided.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.calibration import (
    Tails,
    World,
    Worlds,
    alpha_coverage,
    draw_worlds,
    fine_tails,
    tails,
    with_more_nulls,
)
from jstar.scaling.first_look import FirstLook, first_look
from jstar.scaling.joint import JointPoints, fit_joint
from jstar.scaling.joint_law import (
    CONVERGED,
    EXPONENTS,
    JointLaw,
    bounded,
    flawed,
    law_flaw,
    law_with_intervals,
    widened,
)
from jstar.scaling.laws import Array

CORRECTED, ABOVE, RAW, UNDECIDED = "corrected", "above", "raw", "undecided"
VERDICTS = (CORRECTED, ABOVE, RAW, UNDECIDED)
FLOOR_OF = {CORRECTED: "optimal", RAW: "zero", ABOVE: "free", UNDECIDED: "free"}
AGREES, CANNOT_TELL = "agrees", "cannot be told"
ASKS_MORE, ASKS_LESS = "asks for more than J*", "asks for less than J*"
WRONG = 0.05  # share of wrong verdicts that is one too many
NAN = float("nan")


@dataclass(frozen=True)
class Rates:
    """Shares of studies of this design, by world and verdict; coverage of alpha's interval."""

    of: dict[tuple[str, str], float] = field(default_factory=dict)
    coverage: float = NAN

    def __call__(self, world: str, *verdicts: str) -> float:
        """How often one of the verdicts comes out in the world `zero` or `optimal`."""
        return sum(self.of.get((world, verdict), NAN) for verdict in verdicts)


@dataclass(frozen=True)
class Studies:
    """Q simulated studies of one world at one noise scale, as far as a verdict needs them.

    plain: the four tails of each. fine: the same, beyond what so few studies can count. flawed: by
    the floor of a verdict, whether that law describes the study badly.
    """

    plain: dict[str, Array]
    fine: dict[str, Array]
    flawed: dict[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, worlds: Worlds, world: World) -> "Studies":
        """Of the studies of a world, whose laws were redrawn too."""
        plain, fine = tails(worlds, world.fits), fine_tails(worlds, world.fits)
        floors = {FLOOR_OF[verdict] for verdict in (CORRECTED, ABOVE, RAW)}
        return cls(vars(plain), vars(fine), {f: flawed(worlds, world, f) for f in floors})

    def told(
        self, plain: dict[str, Array], adjusted: dict[str, Array], level: float, small: bool
    ) -> NDArray[np.str_]:
        """The verdict of each study. As in `with_verdict`, none rests on a flawed law."""
        told = words(plain, adjusted, level, small)
        for verdict in (CORRECTED, ABOVE, RAW):
            told[(told == verdict) & self.flawed[FLOOR_OF[verdict]]] = UNDECIDED
        return told


@dataclass(frozen=True)
class JointScale:
    """One noise scale judged: the law under each floor, the verdict, and its error rates.

    resolution: half the width of the free floor's interval. p: the four tails of the test, and
    after adjusting for testing all noise scales. optimal: J*. standing: the laws with a fixed
    floor, their exponents' intervals widened by how often they are judged to have another. bounded:
    the free law among those whose floor is not below 0, its exponents' intervals likewise.
    studies: simulated ones of the worlds without a floor and with J*.
    """

    status: str
    laws: dict[str, JointLaw] = field(default_factory=dict)
    verdict: str = UNDECIDED
    reason: str = ""
    optimal: float = NAN
    smallest_loss: float = NAN
    resolution: float = NAN
    p: dict[str, float] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)
    standing: dict[str, JointLaw] = field(default_factory=dict)
    bounded: JointLaw | None = None
    studies: dict[str, Studies] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        """Whether J* is too small to tell from 0."""
        return not self.optimal >= self.resolution

    @property
    def alpha(self) -> JointLaw | None:
        """The law whose exponents stand: under the floor that the verdict supports.

        A wrong verdict takes the exponent along. Where a verdict fixes the floor, the interval is
        therefore wider: with studies judged wrongly counted as misses, the confidence asked for.

        Where it supports none, the free law without floors below 0, which no loss can have, with
        exponents as uncertain as the floor is: their intervals span those of every law. An interval
        of the free law alone would hold the truth too seldom there, a floor being undecided most
        often where its estimate is far off.
        """
        floor = FLOOR_OF[self.verdict]
        law = self.standing.get(floor, self.laws.get(floor))
        if law is None or self.verdict != UNDECIDED or self.bounded is None:
            return law  # without J* no floor is in question
        fixed = (self.laws[floor] for floor in ("zero", "optimal"))
        known = [self.bounded, *(other for other in fixed if other.status == CONVERGED)]
        low = {name: min(other.low[name] for other in known) for name in EXPONENTS}
        high = {name: max(other.high[name] for other in known) for name in EXPONENTS}
        return replace(self.bounded, low=self.bounded.low | low, high=self.bounded.high | high)


def judge(
    points: JointPoints | str, confidence: float, draws: int, seed: int
) -> JointScale:  # fmt: skip
    """Fit, calibrate and judge one noise scale by itself."""
    fit = points if isinstance(points, str) else fit_joint(points)
    return conclude(first_look(fit, draws, seed), confidence)


def conclude(
    look: FirstLook | str, confidence: float, more: dict[str, int] | None = None
) -> JointScale:  # fmt: skip
    """Judge one noise scale. more: studies of each law to estimate its p-values anew from."""
    if isinstance(look, str):
        return JointScale(look, reason=look)
    points, fits, worlds = look.points, look.fits, look.worlds
    known = np.isfinite(points.optimal)
    laws = {f: law_with_intervals(points, fits, worlds, f, confidence) for f in worlds.null}
    free = laws["free"]
    resolution = (free.high["E"] - free.low["E"]) / 2
    small = not known or points.optimal * points.unit < resolution
    found = look.tails
    if more:
        anew = with_more_nulls(worlds, more, points, fits, look.power, look.seed)
        found = tails(anew, fits)
    rates, standing, studies = Rates(), {}, {}
    if known:
        studies = {name: Studies.of(worlds, world) for name, world in worlds.wide.items()}
        rates = _rates(worlds, studies, confidence, small)
        for floor in ("zero", "optimal"):
            level = confidence + spent_on_verdict(rates, floor, confidence)
            standing[floor] = widened(laws[floor], worlds, level)
    scale = JointScale(
        free.status,
        laws,
        optimal=points.optimal * points.unit,
        smallest_loss=float(points.loss_P.min()) * points.unit,
        resolution=resolution,
        p={name: float(getattr(found, name)[0]) for name in Tails.__dataclass_fields__},
        rates=rates,
        standing=standing,
        bounded=bounded(fits, worlds, laws, confidence) if known else None,
        studies=studies,
    )
    return with_verdict(scale, scale.p, confidence)


def measure_law(
    points: JointPoints | str, floor: str, confidence: float, draws: int, seed: int
) -> JointScale:
    """The law of one noise scale under one floor, and nothing tested: `free` says where it lies."""
    if isinstance(points, str):
        return JointScale(points, reason=points)
    points, fits, power = fit_joint(points)
    worlds = draw_worlds(points, fits, power, draws, seed, (floor,))
    law = law_with_intervals(points, fits, worlds, floor, confidence)
    return JointScale(law.status, {floor: law}, optimal=points.optimal * points.unit)


def adjust_verdicts(scales: list[JointScale], confidence: float) -> list[JointScale]:
    """Verdicts of many noise scales together: false discovery rate of what a verdict rests on.

    What is called rejected is so by its adjusted p-value (Benjamini & Hochberg 1995; noise scales
    share runs, so their tests depend positively), what is called not rejected by its plain one:
    both lean to `undecided`.
    """
    from scipy.stats import false_discovery_control  # a third of a second, needed last

    tested = [k for k, s in enumerate(scales) if s.p]
    if len(tested) < 2:
        return scales
    names = scales[tested[0]].p
    together = {n: false_discovery_control([scales[k].p[n] for k in tested]) for n in names}
    out = list(scales)
    for at, k in enumerate(tested):
        out[k] = with_verdict(scales[k], {n: float(together[n][at]) for n in names}, confidence)
    return out


def words(
    plain: dict[str, Array], adjusted: dict[str, Array], level: float, small: bool
) -> NDArray[np.str_]:
    """The verdict of each study from the tails [Q]; small: J* is too small to tell from 0."""
    needed = adjusted["zero_high"] <= level
    more, less = adjusted["optimal_high"] <= level, adjusted["optimal_low"] <= level
    below_zero = plain["zero_low"] <= level
    excluded = (plain["optimal_high"] <= level) | (plain["optimal_low"] <= level)
    told = np.full(needed.shape, UNDECIDED)
    told[needed & more] = ABOVE
    if not small:
        told[needed & ~excluded] = CORRECTED
        told[~(plain["zero_high"] <= level) & ~below_zero & less] = RAW
    return told


def with_verdict(scale: JointScale, adjusted: dict[str, float], confidence: float) -> JointScale:
    """The scale with its verdict and a sentence that says why."""
    level, p = (1 - confidence) / 2, scale.p
    small = scale.small
    known = np.isfinite(scale.optimal)

    def array(values: dict[str, float]) -> dict[str, Array]:
        return {name: np.array([value]) for name, value in values.items()}

    told = str(words(array(p), array(adjusted), level, small)[0]) if known else UNDECIDED
    reason = _reason(scale, told, small, level)
    wrong = wrong_rate(scale.rates, told)
    law = scale.laws.get(FLOOR_OF[told])
    if told != UNDECIDED and wrong > WRONG:
        reason = f"this design would say '{told}' wrongly in {wrong:.0%} of studies"
        told = UNDECIDED
    elif told != UNDECIDED and law is not None and (flaw := law_flaw(law)):
        reason = f"it would be '{told}', but the joint law {flaw}"
        told = UNDECIDED
    return replace(scale, verdict=told, reason=reason)


def wrong_rate(rates: Rates, told: str) -> float:
    """How often this design says the verdict where it is wrong; nan for `undecided`."""
    if told == RAW:
        return rates("optimal", RAW)
    if told == CORRECTED:
        return rates("zero", CORRECTED, ABOVE)
    if told == ABOVE:
        return max(rates("zero", CORRECTED, ABOVE), rates("optimal", ABOVE))
    return NAN


def _reason(scale: JointScale, told: str, small: bool, level: float) -> str:
    """One sentence for the verdict."""
    p = scale.p
    if not np.isfinite(scale.optimal):
        need = "needed" if p["zero_high"] <= level else "not needed"
        return f"without J* nothing is tested but a floor: {need} (p = {p['zero_high']:.2g})"
    if told == CORRECTED:
        return (
            f"the losses need a floor (p = {p['zero_high']:.2g} without) and J* fits "
            f"(p = {2 * min(p['optimal_high'], p['optimal_low'], 0.5):.2g})"
        )
    if told == RAW:
        return (
            f"no floor is needed (p = {p['zero_high']:.2g}) and J* is too high "
            f"(p = {p['optimal_low']:.2g})"
        )
    if told == ABOVE:
        return f"the losses need a floor above J* (p = {p['optimal_high']:.2g}): " + excess(scale)
    if small:
        return (
            f"J* = {scale.optimal:.3g} is too small for this design, which knows a floor to "
            f"±{scale.resolution:.2g}"
        )
    needed = p["zero_high"] <= level
    if needed and p["optimal_low"] <= level:
        return "the losses need a floor below J*, which none can have: the law or its range is off"
    if p["zero_low"] <= level:
        return "the losses fall faster than any law without a floor: the law or its range is off"
    if needed:
        return "a floor is needed, but not beyond doubt after testing every noise scale"
    return "both no floor and J* fit"


def excess(scale: JointScale) -> str:
    """How much of the smallest gap the data do not explain."""
    gap = scale.smallest_loss - scale.optimal
    share = (scale.laws["free"].E - scale.optimal) / gap if gap > 0 else NAN
    return f"{share:.0%} of the smallest gap would stay"


def _rates(worlds: Worlds, studies: dict[str, Studies], confidence: float, small: bool) -> Rates:
    """Verdicts of the studies whose law was redrawn too, by the plain tails."""
    of, level = {}, (1 - confidence) / 2
    for name, world in studies.items():
        told = world.told(world.plain, world.plain, level, small)
        of.update({(name, v): float((told == v).mean()) for v in VERDICTS})
    rates = Rates(of)
    spent = spent_on_verdict(rates, "optimal", confidence)
    held = alpha_coverage(worlds.wide["optimal"], "optimal", confidence + spent)
    return Rates(of, held - spent)


def spent_on_verdict(rates: Rates, floor: str, confidence: float) -> float:
    """How often a study with this fixed floor is judged to have another: alpha is then missed.

    At most half of what the confidence leaves, by Bonferroni's rule: a design that is wrong more
    often prints no verdict.
    """
    wrong = rates("optimal", ABOVE, RAW) if floor == "optimal" else rates("zero", CORRECTED, ABOVE)
    return min(wrong, (1 - confidence) / 2)


def floor_says(floor: float, low: float, high: float, optimal: float) -> str:
    """What a fitted floor says of J*: agrees, asks for more or less, or cannot be told."""
    if not np.isfinite([floor, low, high, optimal]).all() or (low <= 0 and high >= optimal):
        return CANNOT_TELL
    if low > optimal:
        return ASKS_MORE
    return ASKS_LESS if high < optimal else AGREES
