"""What a planned study would find: verdicts and alpha of synthetic studies of its very design.

Two worlds, the true law with the floor J* and the same without it. Studies of each are drawn with
the stated errors and fitted by the code that fits a study; how far a floor must lie to count is
taken from the laws that such a study would fit, as in `jstar.scaling.calibration`.
"""

from dataclasses import dataclass, replace

import numpy as np

from jstar.constants import CONFIDENCE
from jstar.errors import JstarError
from jstar.scaling.calibration import Tails, World, Worlds, interval, tails
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.joint import JointPoints, exponents, fit_floors, joint_points
from jstar.scaling.joint_many import Whitening, error_weights
from jstar.scaling.joint_solve import solve
from jstar.scaling.laws import Array
from jstar.scaling.planning import QUIET
from jstar.scaling.verdict import UNDECIDED, VERDICTS, WRONG, Rates, words, wrong_rate

WORLDS = ("zero", "optimal")  # floors of the two worlds
STUDIES = 200


@dataclass(frozen=True)
class Expected:
    """What a planned study would find. rates: share of studies by world and verdict.

    alpha: the true one. error_Q: by how much studies with the floor J* miss it. ends: quantiles of
    that, so alpha's interval is the estimate less them. resolution: half width of the free floor's
    interval, over J*.
    """

    alpha: float
    error_Q: Array
    ends: tuple[float, float]
    resolution: float
    rates: Rates

    @property
    def width(self) -> float:
        """Of alpha's interval."""
        return self.ends[1] - self.ends[0]

    def power(self, against: float) -> float:
        """Share of studies whose interval for alpha leaves `against` out."""
        found = self.alpha + self.error_Q
        return float(((against < found - self.ends[1]) | (against > found - self.ends[0])).mean())


def expect(
    design: StudyDesign, truth: JointTruth, *, confidence: float = CONFIDENCE,
    studies: int = STUDIES, seed: int = 0,
) -> Expected:  # fmt: skip
    """Verdicts and alpha of `studies` studies with the floor J*, and of as many without a floor.

    truth: the law with the floor J*; without it J* is the same share of the smallest loss. Raises
    JstarError where the design has no joint law.
    """
    rng = np.random.default_rng([seed, 6])
    bare = _simulate(design, without_floor(design, truth), "zero", confidence, studies, rng)
    floored = _simulate(design, truth, "optimal", confidence, studies, rng)
    return replace(floored, rates=Rates({**bare.rates.of, **floored.rates.of}))


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


def _simulate(
    design: StudyDesign, truth: JointTruth, world: str, confidence: float, studies: int,
    rng: np.random.Generator,
) -> Expected:  # fmt: skip
    """Studies of one world; a verdict that the design itself would disown is undecided."""
    losses, curve = simulate_design(design, replace(truth, **QUIET), 0)
    optimal = float(curve["loss"].iloc[0])
    points = joint_points(losses, "loss", (optimal, truth.optimal_error * optimal), "size")
    if isinstance(points, str):
        raise JstarError(f"no verdict of this design: {points}")
    maker = _Maker.of(design, truth, points, world)
    other = next(w for w in WORLDS if w != world)
    laws = {floor: np.repeat(law, studies, axis=0) for floor, law in maker.laws.items()}
    null = {floor: maker.draw(laws[floor], rng) for floor in WORLDS}
    seen = maker.draw(laws[world], rng)
    redrawn = null[other].fits.theta[other].copy()
    redrawn[:, 4] = laws[other][:, 4]
    low, high = interval(seen.fits.theta["free"][:, 4], confidence)
    resolution = (high - low) / 2 / points.optimal
    of = {}
    for name, drawn in ((world, seen), (other, maker.draw(redrawn, rng))):
        found = tails(Worlds(null, {}), drawn.fits)
        p = {tail: getattr(found, tail) for tail in Tails.__dataclass_fields__}
        told = words(p, p, (1 - confidence) / 2, resolution >= 1)
        of.update({(name, v): float((told == v).mean()) for v in VERDICTS})
    rates = Rates(of)
    # A study's own wrong rate scatters about this one: kept up to WRONG, none at twice that.
    keeps = {v: float(np.clip(2 - wrong_rate(rates, v) / WRONG, 0, 1)) for v in VERDICTS[:-1]}
    mine = {v: keep * rates(world, v) for v, keep in keeps.items()}
    mine[UNDECIDED] = 1 - sum(mine.values())
    true = float(exponents(maker.laws[world])[0][0])
    error_Q = exponents(seen.fits.theta[world])[0] - true
    spread = np.r_[error_Q, exponents(null[world].fits.theta[world])[0] - true]
    return Expected(true, error_Q, interval(spread, confidence), resolution,
                    Rates({(world, v): share for v, share in mine.items()}))  # fmt: skip


@dataclass(frozen=True)
class _Maker:
    """What draws studies of a design with the stated errors.

    truth: theta [1, 5]. laws: the same by floor, the truth and what the other floor makes of the
    expected losses; start: where fits begin. shift_P, drift_P: errors of a run and from snapshot to
    snapshot, relative to the gap, after averaging seeds. along_P: correlation with the snapshot
    before.
    """

    points: JointPoints
    truth: Array
    laws: dict[str, Array]
    shift_P: Array
    drift_P: Array
    along_P: Array
    start: dict[str, Array]

    @classmethod
    def of(
        cls, design: StudyDesign, truth: JointTruth, points: JointPoints, world: str
    ) -> "_Maker":
        """Of points with the expected losses of the world's floor."""
        grid, (params, images), terms = points.design, design.middle, truth.terms()
        scale = ((points.params / params) ** -truth.a, (points.images / images) ** -truth.b)
        log_n = grid.ln_n_P + np.log(points.params)
        size = np.argmin(np.abs(log_n[:, None] - np.log(design.params)), axis=1)
        seeds_P = np.array(design.seeds)[size]
        single = len(grid.start_R) == len(grid)
        along = np.array([0.0 if single else truth.correlation])
        true = np.array(
            [[np.log(terms[0] * scale[0] / points.unit), truth.a,
              np.log(terms[1] * scale[1] / points.unit), truth.b,
              truth.floor * truth.optimal / points.unit]]
        )  # fmt: skip
        ratio = 0.0 if single else truth.run_noise / max(truth.snapshot_noise, 1e-12)
        white = Whitening.of(grid, error_weights(grid, true, 1.0), along, np.array([ratio]))
        near = true.copy()
        near[:, 4] = points.optimal if world == "zero" else 0.0
        near[:, :4:2] += np.log(max((1 - near[0, 4]) / (1 - true[0, 4]), 0.05))
        near, _ = solve(grid, points.loss_P[None], near, white, free=False)
        laws = {world: true, next(w for w in WORLDS if w != world): near}
        return cls(
            points, true, laws, truth.run_noise / np.sqrt(seeds_P),
            truth.snapshot_noise / np.sqrt(seeds_P), grid.along(along)[0],
            {floor: law[0] for floor, law in laws.items()},
        )  # fmt: skip

    def draw(self, truth_QK: Array, rng: np.random.Generator) -> World:
        """One study of each law, and its fits."""
        grid, count = self.points.design, len(truth_QK)
        noise = rng.standard_normal((count, len(grid)))
        for k in np.flatnonzero(~grid.first_P):
            rest = np.sqrt(1 - self.along_P[k] ** 2)
            noise[:, k] = self.along_P[k] * noise[:, k - 1] + rest * noise[:, k]
        series_P = np.cumsum(grid.first_P) - 1
        luck = rng.standard_normal((count, int(series_P[-1]) + 1))[:, series_P]
        # A law that is not the truth keeps the errors of the losses it was fitted to.
        errors = np.expm1(self.shift_P * luck + self.drift_P * noise) * grid.gap(self.truth)
        loss_QP = truth_QK[:, 4:5] + grid.gap(truth_QK) + errors
        optimal_Q = self.points.optimal + self.points.optimal_error * rng.standard_normal(count)
        start = {**self.start, "free": truth_QK[0]}  # as `calibration` begins
        fits = fit_floors(self.points, loss_QP, optimal_Q, start, 1.0)
        return World(fits, truth_QK, optimal_Q)
