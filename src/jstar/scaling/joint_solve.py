"""Least squares of thousands of joint laws at once, by variable projection (Golub & Pereyra 1973).

J = E + A (N/N0)^-a + B (D/D0)^-b is linear in A, B and E once (a, b) are given. They are solved
exactly, inside their bounds, at every trial; Levenberg-Marquardt then moves in (a, b) alone. In the
valleys of this law, where a small exponent and a large A imitate a floor, that takes about five
steps where a search in all five needs forty. One study at a time in C (joint_solve.c), or all at
once in NumPy where no compiler is: the same steps.
"""

from dataclasses import dataclass, fields, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from jstar.scaling.fast_solve import kernel, solve_compiled
from jstar.scaling.joint_many import HIGHEST, LOWEST, JointDesign, Whitening
from jstar.scaling.laws import Array

STEPS = 60
TOLERANCE = 1e-9  # of the sum of squares
ROUNDING = 1e-12  # of a sum of squares, in what its differences are known to
LARGEST_STEP = 0.5  # of an exponent
SHAPES = np.array([1, 3])  # columns and parameters: the derivatives by a and b
TERMS = slice(0, 5, 2)  # those of A, B, E; the last column is what they explain
UPPER = np.triu_indices(6, 1)
SOME_HELD = np.array(list(product((False, True), repeat=3)))[1:]  # of A, B, E
E_AND_MORE_HELD = SOME_HELD[SOME_HELD[:, 2] & SOME_HELD[:, :2].any(axis=1)]


def solve(
    design: JointDesign,
    loss_QP: Array,
    start_IQK: Array,
    white: Whitening,
    *,
    free: bool,
    tolerance: float = TOLERANCE,
) -> tuple[Array, Array]:
    """Least squares of Q studies from I starts each: theta [I, Q, 5], the sum of squares [I, Q].

    start_IQK: ln A, a, ln B, b, E; E stays unless `free`, and A and B start where they are best.
    The search stays inside LOWEST and HIGHEST.
    """
    if library := kernel():
        return solve_compiled(
            library, design, loss_QP, start_IQK, white, tolerance=tolerance, rounding=ROUNDING,
            largest_step=LARGEST_STEP, steps=STEPS, free=free,
        )  # fmt: skip
    same = np.tile(np.arange(len(loss_QP)), len(start_IQK))
    start_QK = start_IQK.reshape(-1, 5)
    theta_QK, rss_Q = _solve_together(
        design, loss_QP[same], start_QK, white.take(same), free, tolerance
    )
    return theta_QK.reshape(start_IQK.shape), rss_Q.reshape(start_IQK.shape[:2])


def _solve_together(
    design: JointDesign, loss_QP: Array, start_QK: Array, white: Whitening, free: bool,
    tolerance: float,
) -> tuple[Array, Array]:  # fmt: skip
    """`solve` from one start a study. One damping a study; one that has converged is left out."""
    theta_QK, rss_Q = np.empty_like(start_QK), np.empty(len(start_QK))
    rows = np.arange(len(start_QK))
    level_Q = start_QK[:, 4]
    problem = _Problem.of(design, loss_QP, level_Q, white, free)
    exponents = np.clip(start_QK[:, SHAPES], LOWEST[SHAPES], HIGHEST[SHAPES])
    here = problem.at(exponents)
    damping = np.full(len(rows), 1e-3)
    for turn in range(STEPS + 1):
        trial = np.clip(here.theta[:, SHAPES] + here.step(damping), LOWEST[SHAPES], HIGHEST[SHAPES])
        there = problem.at(trial)
        better = there.rss <= here.rss
        settled = np.abs(here.rss - there.rss) <= tolerance * here.rss + there.rounding
        here = here.where(better, there)
        damping = np.clip(np.where(better, damping * 0.1, damping * 8), 1e-12, 1e9)
        done = settled | (damping >= 1e9) | (turn == STEPS)
        if done.any():
            theta_QK[rows[done]], rss_Q[rows[done]] = here.theta[done], here.rss[done]
            keep = np.flatnonzero(~done)
            rows, problem, here, damping = (
                rows[keep], problem.take(keep), here.take(keep), damping[keep],
            )  # fmt: skip
        if not len(rows):
            break
    return theta_QK, np.maximum(rss_Q, 0.0)


@dataclass(frozen=True)
class _Place:
    """Where the search of each study is: theta [Q, 5], its sum of squares, and the way on.

    slope [Q, 2], normal [Q, 2, 2]: of the exponents, A, B and E having been projected out.
    rounding [Q]: of the sum of squares.
    """

    theta: Array
    rss: Array
    slope: Array
    normal: Array
    rounding: Array

    def step(self, damping: Array) -> Array:
        """Change of (a, b), [Q, 2]; one at its bound that would leave stays."""
        at, slope = self.theta[:, SHAPES], self.slope
        blocked = ((at <= LOWEST[SHAPES]) & (slope < 0)) | ((at >= HIGHEST[SHAPES]) & (slope > 0))
        first, second = np.where(blocked, 0.0, slope).T
        one, two = (self.normal[:, k, k] * (1 + damping) + 1e-300 for k in range(2))
        both = np.where(blocked.any(axis=1), 0.0, self.normal[:, 0, 1])
        determinant = np.maximum(one * two - both * both, 1e-12 * one * two)
        found = np.stack([two * first - both * second, one * second - both * first], axis=1)
        return np.asarray(np.clip(found / determinant[:, None], -LARGEST_STEP, LARGEST_STEP))

    def where(self, chosen: NDArray[np.bool_], other: "_Place") -> "_Place":
        values = []
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            values.append(np.where(chosen.reshape(-1, *[1] * (mine.ndim - 1)), theirs, mine))
        return _Place(*values)

    def take(self, rows: NDArray[np.int64]) -> "_Place":
        return _Place(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class _Problem:
    """The studies that are still being solved, whitened once: u, u ln N and 1 are constant in a
    cluster, so that their inner products are sums over clusters.

    level_Q: what was taken off the losses. own_QP, before_QP, shape_QP, share_QR: see `Whitening`.
    loss_QP: whitened. unit_QP: what a whitened point gives to its cluster's sum; unit_QR: the
    square of 1. loss_QR: its products with the loss; shift_QR: the loss along a cluster's shift.
    square_Q: of the loss.
    """

    design: JointDesign
    free: bool
    level_Q: Array
    own_QP: Array
    before_QP: Array
    shape_QP: Array
    share_QR: Array
    loss_QP: Array
    unit_QP: Array
    unit_QR: Array
    loss_QR: Array
    shift_QR: Array
    square_Q: Array

    @classmethod
    def of(
        cls, design: JointDesign, loss_QP: Array, level_Q: Array, white: Whitening, free: bool
    ) -> "_Problem":
        """Of losses above a level."""
        own, before, shape, share = white.own_QP, white.before_QP, white.shape_QP, white.share_QR
        y_QP = _whiten(loss_QP - level_Q[:, None], own, before)
        one_QP = own - before
        along_QR = _sums(design, one_QP * shape)
        unit_QP = one_QP - (share * along_QR)[:, design.cluster_P] * shape
        shift_QR = _sums(design, y_QP * shape)
        return cls(
            design, free, level_Q, own, before, shape, share, y_QP, unit_QP,
            _sums(design, unit_QP * one_QP), _sums(design, unit_QP * y_QP), shift_QR,
            (y_QP * y_QP).sum(axis=1) - (share * shift_QR * shift_QR).sum(axis=1),
        )  # fmt: skip

    def take(self, rows: NDArray[np.int64]) -> "_Problem":
        names = [f.name for f in fields(self) if f.name not in ("design", "free")]
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def gram(self, exponents_Q2: Array) -> Array:
        """Inner products [Q, 6, 6] of u, -u ln N, v, -v ln D, 1, loss; u = N^-a and v = D^-b."""
        design, gram = self.design, np.empty((len(exponents_Q2), 6, 6))
        ln_n_R = design.ln_n_P[design.start_R]
        u_QR = np.exp(-exponents_Q2[:, :1] * ln_n_R)
        flat = [u_QR, -u_QR * ln_n_R, np.ones_like(u_QR)]
        v_QP = np.exp(-exponents_Q2[:, 1:] * design.ln_d_P)
        bent = [_whiten(z, self.own_QP, self.before_QP) for z in (v_QP, -v_QP * design.ln_d_P)]
        bent_QR = [_sums(design, self.unit_QP * z) for z in bent] + [self.loss_QR]
        shift_QR = [_sums(design, self.shape_QP * z) for z in bent] + [self.shift_QR]
        for one, row in zip((0, 1, 4), flat, strict=True):
            for other, column in zip((0, 1, 4), flat, strict=True):
                if other >= one:
                    gram[:, one, other] = (row * column * self.unit_QR).sum(axis=1)
            for other, sums in zip((2, 3, 5), bent_QR, strict=True):
                gram[:, min(one, other), max(one, other)] = (row * sums).sum(axis=1)
        for at, one in enumerate((2, 3)):
            for to, other in ((k, c) for k, c in enumerate((2, 3, 5)) if k >= at):
                plain = np.einsum("qp,qp->q", bent[at], [*bent, self.loss_QP][to])
                shared = (self.share_QR * shift_QR[at] * shift_QR[to]).sum(axis=1)
                gram[:, one, other] = plain - shared
        gram[:, 5, 5] = self.square_Q
        gram[:, UPPER[1], UPPER[0]] = gram[:, UPPER[0], UPPER[1]]
        return gram

    def at(self, exponents_Q2: Array) -> _Place:
        """The best A, B and E for given exponents."""
        gram = self.gram(exponents_Q2)
        terms, held, rss = self._terms(gram)
        theta = np.empty((len(exponents_Q2), 5))
        theta[:, SHAPES] = exponents_Q2
        theta[:, [0, 2]] = np.log(terms[:, :2])
        theta[:, 4] = self.level_Q + terms[:, 2]
        scale = terms[:, :2]
        across = _by_study(gram[:, SHAPES, TERMS])
        side = across * ~held[:, None]
        slope = gram[:, SHAPES, 5] - (across @ terms[..., None])[..., 0]
        kept = side @ np.linalg.solve(_inner(gram, held), side.transpose(0, 2, 1))
        normal = gram[:, SHAPES[:, None], SHAPES] - kept
        return _Place(
            theta, rss, slope * scale, normal * scale[:, :, None] * scale[:, None, :],
            ROUNDING * gram[:, 5, 5],
        )  # fmt: skip

    def _terms(self, gram: Array) -> tuple[Array, NDArray[np.bool_], Array]:
        """Best A, B and E above the level, [Q, 3], which of them are held, and the rss, [Q]."""
        low = np.exp(LOWEST[[0, 2]])
        fixed_Q3 = np.tile(np.r_[low, 0.0], (len(gram), 1))
        held_Q3 = np.zeros((len(gram), 3), dtype=bool)
        if self.free:
            fixed_Q3[:, 2] = LOWEST[4] - self.level_Q
        held_Q3[:, 2] = not self.free
        best, rss = _linear(gram, fixed_Q3, held_Q3)
        lower = best < fixed_Q3 if self.free else best[:, :2] < low
        outside = np.flatnonzero(lower.any(axis=1))
        if not len(outside):
            return self._below_highest(gram, best, held_Q3, rss)
        tried = SOME_HELD if self.free else E_AND_MORE_HELD  # the others were solved above
        count, index = len(tried), np.arange(len(outside))
        bound = np.tile(fixed_Q3[outside], (count, 1))
        mask = np.repeat(tried, len(outside), axis=0)
        found, at = _linear(np.tile(gram[outside], (count, 1, 1)), bound, mask)
        inside = (found >= bound - 1e-12 * np.abs(bound)).all(axis=1) & (at < np.inf)
        at = np.where(inside, at, np.inf).reshape(count, -1)
        first = at.argmin(axis=0)
        rss[outside] = at[first, index]
        good = rss[outside] < np.inf
        chosen, rows = (first * len(outside) + index)[good], outside[good]
        best[rows], held_Q3[rows] = found[chosen], mask[chosen]
        return self._below_highest(gram, best, held_Q3, rss)

    def _below_highest(
        self, gram: Array, best: Array, held: NDArray[np.bool_], rss: Array
    ) -> tuple[Array, NDArray[np.bool_], Array]:
        high = np.exp(HIGHEST[[0, 2]])
        beyond = best[:, :2] > high
        if beyond.any():
            fixed = np.minimum(best, np.r_[high, np.inf])
            held = held | np.pad(beyond, ((0, 0), (0, 1)))
            best, rss = _linear(gram, fixed, held)
        return best, held, rss


def _whiten(x_QP: Array, own_QP: Array, before_QP: Array) -> Array:
    """x freed of what the snapshot before tells, in units of its error."""
    y_QP = x_QP * own_QP
    y_QP[:, 1:] -= x_QP[:, :-1] * before_QP[:, 1:]
    return y_QP


def _sums(design: JointDesign, x_QP: Array) -> Array:
    """Sum over each cluster, [Q, R]."""
    return np.asarray(np.add.reduceat(x_QP, design.start_R, axis=1))


def _by_study(x: Array) -> Array:
    """A copy whose studies lie next to one another, the axis along which most is summed."""
    return np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)


def _inner(gram: Array, held: NDArray[np.bool_]) -> Array:
    """Inner products of the terms that are not held, 1 on the diagonal of those that are."""
    inner = gram[:, TERMS, TERMS] * ~(held[:, :, None] | held[:, None, :])
    index = np.arange(3)
    inner[:, index, index] = np.where(held, 1.0, inner[:, index, index] * (1 + 1e-13) + 1e-300)
    return np.asarray(inner)


def _linear(gram: Array, fixed: Array, held: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Least squares of the terms, [Q, 3], those that are held being fixed; and the rss, [Q]."""
    inner, right = _by_study(gram[:, TERMS, TERMS]), _by_study(gram[:, TERMS, 5])
    known = np.where(held, fixed, 0.0)
    rest = np.where(held, 0.0, right - np.einsum("qkl,ql->qk", inner, known))
    terms = np.where(held, fixed, np.linalg.solve(_inner(gram, held), rest[..., None])[..., 0])
    explained = 2 * (terms * right).sum(axis=1) - np.einsum("qk,qkl,ql->q", terms, inner, terms)
    return terms, gram[:, 5, 5] - explained
