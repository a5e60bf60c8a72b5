"""The law of a study that is not yet paid for, stated or from a pilot; where its sizes cross."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jstar.constants import TOTAL
from jstar.errors import JstarError
from jstar.records import read_table
from jstar.scaling.design import COMPUTE, JointTruth, StudyDesign, simulate_design
from jstar.scaling.frontier import frontier
from jstar.scaling.laws import Array

PILOT = ("sigma", "floor", "E", "A", "a", "B", "b", "N0", "D0", "status")
TOKENS_PER_PARAM = 100.0  # at the optimum of the shipped studies: digits 100, Fashion-MNIST 46
BEYOND = 2.0  # times the compute at which the next size overtakes: both sides of a crossing show
SNAPSHOTS = 8  # least number of a run whose size shall cross another
# Errors as the shipped studies show them, the median over their noise scales.
MEASURED = JointTruth(run_noise=0.03, snapshot_noise=0.05, correlation=0.9)
QUIET = {"run_noise": 0.0, "snapshot_noise": 0.0, "optimal_error": 0.0}


def stated_truth(
    design: StudyDesign, truth: JointTruth, images_per_param: float | None, floor_share: float
) -> JointTruth:
    """The law with the truth's exponents and errors that has its optimum and floor as stated.

    images_per_param: D / N where the middle size is compute-optimal; default: TOKENS_PER_PARAM,
    an image counting FLOPs / (6 N) tokens. floor_share: J* over the smallest loss of the design.
    """
    for name in ("a", "b"):
        if not getattr(truth, name) > 0:
            raise JstarError(f"exponent {name} = {getattr(truth, name):g}, it must be above 0")
    if not 0 < floor_share < 1:
        raise JstarError(f"floor share = {floor_share:g}, allowed is above 0 and below 1")
    if images_per_param is None:
        tokens = float(np.median(design.cost / np.array(design.params))) / COMPUTE
        images_per_param = TOKENS_PER_PARAM / tokens
    if not images_per_param > 0:
        raise JstarError(f"images per parameter = {images_per_param:g}, it must be above 0")
    params, images = design.middle
    ratio = truth.b / truth.a * (images_per_param * params / images) ** -truth.b
    made = replace(truth, floor=0.0, part=float(ratio / (1 + ratio)))
    smallest = float(simulate_design(design, replace(made, **QUIET), 0)[0]["loss"].min())
    return replace(made, floor=1.0, optimal=floor_share / (1 - floor_share) * smallest)


def pilot_truth(
    path: Path, sigma: str | None, design: StudyDesign, errors: JointTruth
) -> JointTruth:
    """The law with the floor J* of a fitted study, parametric.csv, with the given errors.

    sigma: the noise scale, or total; default: total where there is one.
    """
    table = read_table(path, PILOT)
    table = table[table["floor"] == "optimal"]
    if table.empty:
        raise JstarError(f"{path}: no law has the floor 'optimal', a fit with J* writes it")
    known = [str(s) for s in table["sigma"]]
    sigma = TOTAL if sigma is None and TOTAL in known else sigma
    at = [sigma is not None and (s == sigma or _near(s, sigma)) for s in known]
    if sum(at) != 1:
        raise JstarError(
            f"{path}: sigma = {sigma or 'not given'}, allowed is one of {', '.join(known)}"
        )
    law = table[np.array(at)].iloc[0]
    if law["status"] != "converged":
        raise JstarError(
            f"{path}: the law of sigma = {sigma} is '{law['status']}', choose another noise scale"
        )
    terms, middle = (law["A"], law["B"]), (law["N0"], law["D0"])
    truth = replace(errors, a=float(law["a"]), b=float(law["b"]), optimal=float(law["E"]))
    return _seen_from(truth, terms, middle, design.middle)


def _seen_from(
    truth: JointTruth, terms: tuple[float, float], old: tuple[float, float],
    new: tuple[float, float],
) -> JointTruth:  # fmt: skip
    """The law with the terms A, B at the sizes and images `old`, in units of its gap at `new`."""
    by_size = terms[0] * (new[0] / old[0]) ** -truth.a
    by_data = terms[1] * (new[1] / old[1]) ** -truth.b
    unit = float(by_size + by_data)
    return replace(truth, optimal=truth.optimal / unit, part=float(by_size) / unit)


def _near(one: str, other: str) -> bool:
    """Whether two noise scales are the same to three digits."""
    try:
        return bool(np.isclose(float(one), float(other), rtol=5e-3))
    except ValueError:
        return False


@dataclass(frozen=True)
class Competition:
    """Where sizes compete. crossings: FLOPs at which one takes over while the smaller still trains.

    sizes: number of them. takeover: FLOPs at which each size would overtake the one before it.
    unfinished: how many would only do so after the smaller one's last snapshot; late: before the
    larger one's first.
    """

    crossings: tuple[float, ...]
    sizes: int
    takeover: tuple[float, ...]
    unfinished: int
    late: int

    @property
    def complete(self) -> bool:
        """Whether every size takes over from the one before it within the design."""
        return len(self.crossings) >= self.sizes - 1


def competition(design: StudyDesign, truth: JointTruth) -> Competition:
    """The crossings of the expected losses, as `jstar fit` counts them."""
    losses, _ = simulate_design(design, replace(truth, **QUIET), 0)
    found = frontier(losses).crossings
    ends = losses.groupby("params")["flops"].agg(["min", "max"])
    takeover = takeovers(design, truth)
    short, late = takeover >= ends["max"].to_numpy()[:-1], takeover <= ends["min"].to_numpy()[1:]
    return Competition(
        tuple(float(np.exp(f)) for f in found), len(ends), tuple(takeover.tolist()),
        int(short.sum()), int((late & ~short).sum()),
    )  # fmt: skip


def takeovers(design: StudyDesign, truth: JointTruth) -> Array:
    """FLOPs at which each size but the smallest overtakes the one before it, [R - 1].

    Where A n_1^-a + B (F / c_1)^-b = A n_2^-a + B (F / c_2)^-b, with c the FLOPs per image.
    """
    params, images = design.middle
    by_size, by_data = truth.terms()
    size, cost = _sizes(design)
    gain = by_size * -np.diff((size / params) ** -truth.a)
    price = by_data * np.diff((cost * images) ** truth.b)
    return np.asarray((price / gain) ** (1 / truth.b))


def _sizes(design: StudyDesign) -> tuple[Array, Array]:
    """The distinct sizes, increasing, and their FLOPs per image."""
    size, first = np.unique(design.params, return_index=True)
    return size, design.cost[first]


def crossing_images(design: StudyDesign, truth: JointTruth) -> Array:
    """Images per size with which all sizes cross, and isoFLOP minima lie inside the ladder.

    Each size is trained to BEYOND times where the next one overtakes it, and on to where that one
    is overtaken in its turn; the largest gets the compute of the one before it.
    """
    takeover = takeovers(design, truth)
    after = np.r_[takeover[1:], takeover[-1:], takeover[-1:]]
    flops = np.maximum(BEYOND * np.r_[takeover, takeover[-1]], after)
    return np.asarray(flops / _sizes(design)[1])


def crossing_design(design: StudyDesign, truth: JointTruth) -> tuple[StudyDesign, JointTruth]:
    """The same sizes, seeds and number of snapshots with images that make all sizes cross.

    Snapshots begin where they did, or earlier if a takeover would be missed; the law is given in
    the units of the new design.
    """
    size, cost = _sizes(design)
    first = min(min(steps) for steps in design.images)
    first = min(first, float((takeovers(design, truth) / BEYOND / cost[1:]).min()))
    count = max(SNAPSHOTS, *(len(steps) for steps in design.images))
    steps = [tuple(np.geomspace(d, first, count)[::-1]) for d in crossing_images(design, truth)]
    seeds = dict(zip(design.params, design.seeds, strict=True))
    made = StudyDesign(tuple(size), tuple(steps), tuple(seeds[n] for n in size), tuple(cost))
    return made, _seen_from(truth, truth.terms(), design.middle, made.middle)
