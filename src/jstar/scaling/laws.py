"""The three laws, their points and their results: small frozen records, no fitting here.

raw        J(F)      = beta F^alpha
corrected  J(F) - J* = beta F^alpha      J* given, with its standard error
free       J(F)      = J0 + beta F^alpha J0 fitted: a check of J*, not a headline
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LAWS = ("raw", "corrected", "free")
GAP_RESPONSE = "J - J*"
ZERO = np.zeros(1)
MIN_POINTS = 5  # AICc of three parameters and sigma needs n > k + 1
MIN_CLUSTERS = 3  # a line through fewer has no estimable error


class FitStatus(StrEnum):
    """What became of a fit. Only CONVERGED is a number to quote."""

    CONVERGED = "converged"
    TOO_FEW_POINTS = "too few points"
    TOO_FEW_CLUSTERS = "too few clusters"
    NO_OPTIMAL = "no optimal loss"
    GAP_NOT_RESOLVED = "gap not resolved"
    NOT_IDENTIFIABLE = "not identifiable"
    NOT_CONVERGED = "not converged"
    NO_CROSSING = "no crossing"  # the points are no envelope: sizes do not compete
    SOLVERS_DISAGREE = "solvers disagree"


@dataclass(frozen=True)
class LawPoints:
    """Frontier points of one noise scale (or of the total), each array [P].

    flops, loss: compute and loss. gap: loss - J* (nan without J*), measured directly if `direct`.
    loss_se, gap_se: standard errors of the evaluation, zero where unknown. cluster: labels
    0 ... R-1 of what varies together. optimal, optimal_se: J* and its standard error.
    """

    flops: Array
    loss: Array
    gap: Array
    loss_se: Array
    gap_se: Array
    cluster: NDArray[np.int64]
    optimal: float = float("nan")
    optimal_se: float = 0.0
    direct: bool = False

    def __len__(self) -> int:
        return len(self.flops)

    @property
    def center(self) -> float:
        """ln of the geometric mean of F: laws are fitted in x = ln F - center."""
        return float(np.mean(np.log(self.flops)))

    @property
    def x(self) -> Array:
        """Centred ln F, [P]."""
        return np.asarray(np.log(self.flops) - self.center)

    @property
    def clusters(self) -> int:
        """Number of clusters R."""
        return int(self.cluster.max()) + 1 if len(self) else 0

    def response(self, law: str) -> tuple[Array, Array]:
        """What the law is fitted to, and its evaluation error: gap (corrected) or loss."""
        if law == "corrected":
            return self.gap, self.gap_se
        return self.loss, self.loss_se

    def shift(self, law: str) -> float:
        """What one standard error of J* adds to the response: it moves a gap made by subtraction,
        and ln J of the raw law where J was made as J* + direct gap.
        """
        moved = self.optimal_se if (law == "corrected") != self.direct else 0.0
        return -moved if law == "corrected" else moved

    def take(self, keep: NDArray[np.bool_]) -> "LawPoints":
        """The points for which `keep` [P] is true."""
        arrays = ("flops", "loss", "gap", "loss_se", "gap_se")
        cluster = np.unique(self.cluster[keep], return_inverse=True)[1].astype(np.int64)
        return replace(self, cluster=cluster, **{a: getattr(self, a)[keep] for a in arrays})

    def with_optimal(self, optimal: float) -> "LawPoints":
        """The same losses against another J*; a direct gap stays, and its loss moves."""
        if self.direct:
            return replace(self, optimal=optimal, loss=optimal + self.gap)
        return replace(self, optimal=optimal, gap=self.loss - optimal)


@dataclass(frozen=True)
class LawFit:
    """One law fitted to one frontier.

    alpha, beta: J = beta F^alpha (+ offset) with F in the table's own unit; alpha < 0 where the
    loss falls. alpha_se: from the covariance of the fit alone. alpha_low, alpha_high: the headline
    interval (wild cluster bootstrap over runs x J* draws x evaluation draws).
    r2 is of the response named in r2_response: `ln J`, `ln(J - J*)` or, where a measured gap is
    not above 0, `J - J*`; never to be compared.
    aicc: of the law as a prediction of ln J, sigma counted. scatter: standard deviation of the
    log response beyond the evaluation error. center: ln F where ln beta F^alpha = ln_scale.
    covariance, profile: the two other intervals of alpha. solver_difference: the largest relative
    difference between lmfit and variable projection. residual: of the log response, [P];
    weight: of the points in the fit, [P].
    """

    law: str
    status: FitStatus
    n: int
    clusters: int
    alpha: float = float("nan")
    alpha_se: float = float("nan")
    alpha_low: float = float("nan")
    alpha_high: float = float("nan")
    covariance: tuple[float, float] = (float("nan"), float("nan"))
    profile: tuple[float, float] = (float("nan"), float("nan"))
    ln_scale: float = float("nan")
    center: float = float("nan")
    offset: float = float("nan")
    offset_se: float = float("nan")
    r2: float = float("nan")
    r2_response: str = ""
    aicc: float = float("nan")
    scatter: float = float("nan")
    solver_difference: float = float("nan")
    residual: Array = field(default_factory=lambda: np.empty(0), repr=False)
    weight: Array = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def ok(self) -> bool:
        """Whether the fit converged to a unique answer."""
        return self.status is FitStatus.CONVERGED

    @property
    def in_loss(self) -> bool:
        """Whether the response is J - J* itself, because its logarithm does not exist."""
        return self.r2_response == GAP_RESPONSE

    @property
    def beta(self) -> float:
        """Factor of F^alpha, in loss units per (unit of F)^alpha."""
        return float(np.exp(self.ln_scale - self.alpha * self.center))

    def gap(self, flops: Array) -> Array:
        """beta F^alpha, [P]."""
        return np.asarray(np.exp(self.ln_scale + self.alpha * (np.log(flops) - self.center)))

    def loss(self, flops: Array) -> Array:
        """offset + beta F^alpha, [P]."""
        return np.asarray(self.offset + self.gap(flops))


def log_response(points: LawPoints, fit: LawFit, z_Q: Array = ZERO, noise_Q: Array = ZERO) -> Array:
    """ln of what the law is fitted to, [Q, P], with J* off by z and the evaluation by `noise` SE.

    nan in rows in which a gap (or, in a fit in J, the law itself) would not be above 0. A fit in J
    has the working response ln g + (gap - g) / g about its law g, whose line is that very fit.
    """
    response, error = points.response(fit.law)
    step_QP = z_Q[:, None] * points.shift(fit.law) + noise_Q[:, None] * error
    about = fit.gap(points.flops) if fit.in_loss else response
    possible = (about + step_QP > 0).all(axis=1, keepdims=True)
    if fit.in_loss:
        return np.where(possible, np.log(about) + (response + step_QP) / about - 1, np.nan)
    return np.asarray(np.log(np.where(possible, response + step_QP, np.nan)))
