"""`optimal_loss`: from images and noise scales to the curve."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from jstar.config import ESTIMATORS, EXACT_ESTIMATORS, FORMS, estimator_conflict
from jstar.constants import CRITICAL_SHARE, NORMAL_95
from jstar.curve import OptimalLoss
from jstar.errors import JstarError, nearest
from jstar.optimal.exact.mixture_form import MixtureForm
from jstar.optimal.exact.pair_form import ControlledPairForm, PairForm
from jstar.optimal.exact.problem import (
    DEFAULT_QUERIES,
    Advance,
    DrawForm,
    ExactProblem,
    Floats,
    pose_problem,
)
from jstar.optimal.exact.regression import error_correlation, weighted_estimate
from jstar.optimal.paper.moment_form import MomentForm
from jstar.optimal.paper.subsets import DEFAULT_REPEATS, SubsetPlan, subset_curve
from jstar.optimal.points import DataPoints, as_points, check_sigmas
from jstar.torch_device import default_device

ROUNDS = 4  # of the stopping rule: every 4th draw, ..., each a systematic sample by itself


def optimal_loss(
    images: Any,
    sigmas: Any,
    *,
    estimator: str = "exact",
    labels: Any = None,
    queries: int | None = None,
    seed: int = 0,
    scale: float | None = None,
    offset: float | None = None,
    mirror: bool = False,
    spread: Any = None,
    form: str = FORMS[0],
    label_drop: float = 0.0,
    antithetic: bool = True,
    precision: str = "auto",
    relative_se: float | None = None,
    seconds: float | None = None,
    subset: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    own_weight: float | None = None,
    device: torch.device | str | None = None,
    advance: Advance | None = None,
) -> OptimalLoss:
    """The optimal loss J*(sigma) = E|x0 - E[x0|x]|^2 / D of the empirical distribution of `images`.

    images: [N, ...], uint8 (x = (u - offset) * scale, by default -1..1) or floating point (taken
    as x, unless offset and scale are given). sigmas: [S], increasing noise scales in units of x.
    queries: noisy draws M, at most one an image while M <= N. labels: [N] integers, for
    exact_by_class: the posterior then runs over the points of the draw's class. label_drop: this
    share of the draws has lost its label and so the unconditional optimal loss: the training loss
    of a model with label drop (of one that is given all labels it is 0, whatever the drop in
    training). mirror: the horizontally mirrored images are points too. spread: [N, ...], in
    stored units, each point is the centre of a Gaussian component of these standard deviations
    (sampled latents). form: `pair+controls` (its standard error is honest from 4,096 draws on),
    `pair`, or the paper's `moment`, which needs D* itself and so a third product for every noise
    scale. antithetic: use +eps and -eps of every draw. precision: `auto`, `int8` (uint8 images)
    or `fp32`.

    relative_se, seconds: stop after a quarter, half or three quarters of the draws when every
    relative standard error (where J* is above 0.1 % of the variance) is small enough, or when the
    next quarter would not end in time; `.ended` says which.

    subset, repeats, own_weight: for snis, dol and cdol: L points in each of so many random subsets,
    and the constant C (the source's own term has weight 1/C; default 4N/L, 1 at L = N).

    Loss and errors are means over the D dimensions, in the units of x squared.
    Raises JstarError for input that cannot be used. Source: arXiv 2506.13763, theorem 1.
    """
    for name, value, allowed in (("estimator", estimator, ESTIMATORS), ("form", form, FORMS)):
        if value not in allowed:
            raise JstarError(
                f"{name}: '{value}' is unknown, allowed are {', '.join(allowed)}"
                + nearest(value, allowed)
            )
    conflict = estimator_conflict(
        estimator, form=form, sampled=spread is not None, label_drop=label_drop,
        relative_se=relative_se, seconds=seconds,
    )  # fmt: skip
    if conflict:
        raise JstarError(conflict)
    points = as_points(images, scale=scale, offset=offset, mirror=mirror, spread=spread)
    if len(points) < 2 and spread is None:
        raise JstarError("images: 1 image given, at least 2 are needed (of one point J* is 0)")
    if estimator not in EXACT_ESTIMATORS:
        plan = SubsetPlan(subset, repeats, own_weight)
        count = DEFAULT_QUERIES if queries is None else int(queries)
        where = default_device(device)
        return subset_curve(points, check_sigmas(sigmas), estimator, plan, count, seed, where)
    problem = pose_problem(
        points, sigmas, estimator=estimator, labels=labels, queries=queries, seed=seed,
        antithetic=antithetic, precision=precision, label_drop=label_drop, device=device,
    )  # fmt: skip
    draw_form = form_of_draws(form, points)
    if relative_se is None and seconds is None:
        sums_BAMSF = sums_of_draws(problem, draw_form, advance=advance)
        return curve_of_draws(problem, draw_form, sums_BAMSF)
    return _until(problem, draw_form, relative_se, seconds, advance)


def form_of_draws(form: str, points: DataPoints) -> DrawForm:
    """The class of the form; sampled latents have only one."""
    forms = {"pair+controls": ControlledPairForm, "pair": PairForm, "moment": MomentForm}
    return MixtureForm() if points.spread_ND is not None else forms[form]()


def sums_of_draws(
    problem: ExactProblem, form: DrawForm, shard: tuple[int, int] = (1, 1),
    advance: Advance | None = None,
) -> Floats:  # fmt: skip
    """What the form needs of shard k of n of the points (1-based), [B, A, M, S, F]."""
    return np.stack([form.sums(kind, shard, advance) for _, kind in problem.kinds()])


def curve_of_draws(problem: ExactProblem, form: DrawForm, sums_BAMSF: Floats) -> OptimalLoss:
    """From the sums of all draws to the curve in the data scale, per dimension."""
    kinds, points = problem.kinds(), problem.points
    per_kind = zip(kinds, sums_BAMSF, strict=True)
    by_scale = zip(*(form.estimates(kind, sums) for (_, kind), sums in per_kind), strict=True)
    estimates = [weighted_estimate([share for share, _ in kinds], same) for same in by_scale]
    unit = points.scale**2 / points.dim
    loss = unit * np.array([e.value for e in estimates])
    stderr = unit * np.array([e.stderr for e in estimates])
    return OptimalLoss(
        sigma=problem.sigma_S,
        loss=loss,
        stderr=stderr,
        lower=np.maximum(loss - NORMAL_95 * stderr, 0.0),
        upper=loss + NORMAL_95 * stderr,
        correlation_SS=error_correlation(np.stack([e.residual_M for e in estimates], axis=1)),
        form=tuple(e.form for e in estimates),
        estimator=problem.estimator,
        queries=len(problem.source_M),
        count=len(points),
        dim=points.dim,
        variance=unit * sum(share * kind.variance for share, kind in kinds),
        log_count=sum(share * kind.log_count for share, kind in kinds),
    )


def _until(
    problem: ExactProblem, form: DrawForm, relative_se: float | None, seconds: float | None,
    advance: Advance | None,
) -> OptimalLoss:  # fmt: skip
    """Add quarters of the draws until an error target or a time budget ends it."""
    for name, value in (("relative_se", relative_se), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise JstarError(f"{name} = {value:g} is not allowed, it must be above 0")
    count, start = len(problem.source_M), time.monotonic()
    done, parts = [], []
    for number, offset in enumerate((0, 2, 1, 3)):  # halves are evenly spread, too
        rows = np.arange(offset, count, ROUNDS)
        if len(rows) < 2:
            rows = np.arange(count)
        done.append(rows)
        parts.append(sums_of_draws(problem.part(rows), form, advance=advance))
        drawn = np.concatenate(done)
        order = np.argsort(drawn)
        sums_BAMSF = np.concatenate(parts, axis=2)[:, :, order]
        curve = curve_of_draws(problem.part(drawn[order]), form, sums_BAMSF)
        shown = curve.loss > CRITICAL_SHARE * curve.variance
        if relative_se and (curve.stderr[shown] <= relative_se * curve.loss[shown]).all():
            return replace(curve, ended="relative_se")
        spent = time.monotonic() - start
        if len(drawn) >= count:
            break
        if seconds is not None and spent * (number + 2) / (number + 1) > seconds:
            return replace(curve, ended="seconds")
    return replace(curve, ended="queries")
