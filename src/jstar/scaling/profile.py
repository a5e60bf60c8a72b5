"""Profile-likelihood intervals of the exponent, with J* profiled inside its own error."""

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtri, ndtri

from jstar.scaling.compare import effective_share
from jstar.scaling.laws import Array, LawFit, LawPoints, log_response
from jstar.scaling.many_fits import line

FREE_PARAMETERS = 3
STEPS = 161
EDGE = (0.02, 40.0)  # |alpha| x range of ln F between which a free exponent is looked for
DEPTHS = 41
DEPTH = (1e-3, 1e4)  # what is left above the floor at the largest F, in units of the total fall
SHOWN = 4.0  # how far a curve is followed, in units of what the interval allows


@dataclass(frozen=True)
class Profile:
    """Deviance [A] of alpha [A], maximised over everything else and up to a constant.

    The interval is where it lies within `drop` of its minimum.
    """

    alpha: Array
    deviance: Array
    drop: float

    def interval(self) -> tuple[float, float]:
        """Ends of the region within `drop` of the minimum, linear between grid points."""
        value = self.deviance - self.deviance.min() - self.drop
        inside = np.flatnonzero(value <= 0)
        first, last = int(inside[0]), int(inside[-1])
        low, high = self.alpha[first], self.alpha[last]
        if first > 0:
            ends = [first, first - 1]
            low = np.interp(0, value[ends], self.alpha[ends])
        if last < len(value) - 1:
            ends = [last, last + 1]
            high = np.interp(0, value[ends], self.alpha[ends])
        return float(low), float(high)

    def curve(self) -> tuple[Array, Array]:
        """alpha, and the rise of the deviance in units of `drop`, where it is below SHOWN."""
        rise = (self.deviance - self.deviance.min()) / self.drop
        keep = np.flatnonzero(rise <= SHOWN)
        keep = keep[:: max(1, len(keep) // STEPS)]
        return self.alpha[keep], rise[keep]


def profile_interval(points: LawPoints, fit: LawFit, confidence: float) -> tuple[float, float]:
    """alpha whose likelihood, maximised over everything else, is within chi2_1 of the maximum."""
    if fit.law == "free":
        return free_interval(points, fit, confidence)
    if _known_errors(points, fit):
        half = ndtri((1 + confidence) / 2) * _slope_error(points.x, fit.weight)
        return fit.alpha - half, fit.alpha + half
    return law_profile(points, fit, confidence).interval()


def profile_curve(points: LawPoints, fit: LawFit, confidence: float) -> tuple[Array, Array]:
    """alpha, and the rise of the deviance over what the interval allows (1 at its ends); to draw.

    Empty where the law has too few clusters for one.
    """
    if fit.law == "free":
        found = free_profile(points, fit, confidence)
        return found.curve() if found else (np.empty(0), np.empty(0))
    return law_profile(points, fit, confidence).curve()


def _known_errors(points: LawPoints, fit: LawFit) -> bool:
    """Whether the evaluation errors are all there is: the deviance is then an exact parabola."""
    _, error = points.response(fit.law)
    return bool((error > 0).all()) and fit.scatter == 0 and not _uncertain(points, fit)


def _uncertain(points: LawPoints, fit: LawFit) -> bool:
    """Whether the response depends on an uncertain J*."""
    return points.shift(fit.law) != 0


def law_profile(points: LawPoints, fit: LawFit, confidence: float) -> Profile:
    """Profile of the raw or the corrected law.

    J* is known with an error, and is not estimated from these losses, in the headline as here:
    z standard errors cost z^2, and alpha is judged against the best line for that J*. So the
    profile lies about the estimate; letting the losses choose J* as well would be the free law.
    """
    drop = float(ndtri((1 + confidence) / 2) ** 2)
    if _known_errors(points, fit):
        error = _slope_error(points.x, fit.weight)
        grid = fit.alpha + error * np.linspace(-12, 12, 20 * STEPS)
        return Profile(grid, ((grid - fit.alpha) / error) ** 2, drop)
    reach = np.sqrt(SHOWN * drop) if _uncertain(points, fit) else 0.0
    z = np.linspace(-reach, reach, STEPS) if reach else np.zeros(1)
    y_ZP = log_response(points, fit, z, np.zeros(len(z)))
    possible = np.isfinite(y_ZP).all(axis=1)
    z, y_ZP = z[possible], y_ZP[possible]
    weight = fit.weight / fit.weight.mean()
    best = line(points.x, y_ZP, weight)
    rest = y_ZP - best.ln_scale[:, None] - best.alpha[:, None] * points.x
    rss_Z = (rest**2) @ weight
    curve = 1 / _slope_error(points.x, weight) ** 2
    n = len(points)
    spread = np.sqrt(rss_Z.min() / max(n - 2, 1) / curve)
    low, high = float(best.alpha.min()) - 12 * spread, float(best.alpha.max()) + 12 * spread
    grid = np.union1d(np.linspace(low, high, 20 * STEPS), fit.alpha)
    rise_AZ = (grid[:, None] - best.alpha) ** 2 * curve / np.maximum(rss_Z, 1e-300)
    deviance = (n * np.log1p(rise_AZ) + z**2).min(axis=1)
    return Profile(grid, np.asarray(deviance), drop)


def _slope_error(x: Array, weight: Array) -> float:
    """Standard error of a slope for errors of variance 1 / weight."""
    return float(1 / np.sqrt(weight @ (x - np.average(x, weights=weight)) ** 2))


def free_interval(points: LawPoints, fit: LawFit, confidence: float) -> tuple[float, float]:
    """Profile interval of a free law's exponent; an end that is not found is infinite."""
    found = free_profile(points, fit, confidence)
    if found is None:
        return -np.inf, np.inf
    low, high = found.interval()
    first, last = found.alpha[[0, -1]]
    return (-np.inf if low == first else low), (np.inf if high == last else high)


def free_profile(points: LawPoints, fit: LawFit, confidence: float) -> Profile | None:
    """Profile of the free law; None with fewer clusters than it needs.

    For every alpha the floor is searched over its whole range and the scale projected out, so the
    ridge along which J0 and alpha trade places is followed to its end. Points of one cluster are
    not independent: n is divided by the design effect of the residuals, and the quantile is that
    of F with clusters - 3 degrees of freedom.
    """
    freedom = points.clusters - FREE_PARAMETERS
    if freedom < 1:
        return None
    reach = float(np.ptp(points.x))
    effective = len(points) * effective_share(points, fit, FREE_PARAMETERS)
    near = fit.alpha + fit.alpha_se * np.sqrt(len(points) / effective) * np.linspace(-6, 6, STEPS)
    far = -np.geomspace(*EDGE, STEPS) / reach
    grid = np.union1d(far, near[(near > far.min()) & (near < far.max())])
    weight = fit.weight / fit.weight.sum()
    rss_A = _free_rss(points, weight, grid)
    unit = max(float(rss_A.min()), 1e-300) / max(effective - FREE_PARAMETERS, 1)
    return Profile(grid, rss_A / unit, float(fdtri(1, freedom, confidence)))


def _free_rss(points: LawPoints, weight: Array, alpha_A: Array) -> Array:
    """Least weighted sum of squares of ln J for every alpha, over all floors and scales, [A].

    The floor is searched through the depth d > 0: what is left above it at the largest F, in units
    of the fall of the power law, first on a grid, then by golden section.
    """
    x, y = points.x, np.log(points.loss) - np.log(points.loss).mean()
    power = np.exp(alpha_A[:, None] * (x - x.max())) - 1  # 0 at the largest F, above 0 elsewhere
    fall = power.max(axis=1, keepdims=True)

    def rss(log_depth_A: Array) -> Array:
        rest = y - np.log(power + np.exp(log_depth_A)[:, None] * fall)
        rest = rest - (rest @ weight)[:, None]
        return np.asarray((rest**2) @ weight)

    depth = np.log(np.geomspace(*DEPTH, DEPTHS))
    coarse = np.stack([rss(np.full(len(alpha_A), d)) for d in depth])
    best = coarse.argmin(axis=0)
    low, high = depth[np.maximum(best - 1, 0)], depth[np.minimum(best + 1, DEPTHS - 1)]
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        lower = rss(left) < rss(right)
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    return np.asarray(np.minimum(rss(0.5 * (low + high)), coarse.min(axis=0)))
