"""`optimal_loss`: from images and noise scales to the curve."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from jstar.config import ESTIMATORS, EXACT_ESTIMATORS
from jstar.config.choices import FORMS
from jstar.curve import OptimalLoss
from jstar.errors import JstarError, nearest
from jstar.optimal.exact.job import DEFAULT_QUERIES, Advance, Job, default_device, make_job
from jstar.optimal.paper.subsets import DEFAULT_REPEATS, SubsetPlan, subset_curve
from jstar.optimal.points import as_points, check_sigmas

ROUNDS = 4  # of the stopping rule: every 4th draw, ..., each a systematic sample by itself
RELEVANT = 1e-3  # of the variance: the stopping rule looks at noise scales with J* above this


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
    if estimator not in ESTIMATORS:
        raise JstarError(
            f"estimator: '{estimator}' is unknown, allowed are {', '.join(ESTIMATORS)}"
            + nearest(estimator, ESTIMATORS)
        )
    points = as_points(images, scale=scale, offset=offset, mirror=mirror, spread=spread)
    if len(points) < 2 and spread is None:
        raise JstarError("images: 1 image given, at least 2 are needed (of one point J* is 0)")
    if estimator not in EXACT_ESTIMATORS:
        for name, given in (("spread", spread is not None), ("form", form != FORMS[0]),
                            ("label_drop", label_drop != 0), ("relative_se", bool(relative_se)),
                            ("seconds", bool(seconds))):  # fmt: skip
            if given:
                raise JstarError(
                    f"{name}: is not allowed with the estimator '{estimator}', only with "
                    + ", ".join(EXACT_ESTIMATORS)
                )
        plan = SubsetPlan(subset, repeats, own_weight)
        count = DEFAULT_QUERIES if queries is None else int(queries)
        where = default_device(device)
        return subset_curve(points, check_sigmas(sigmas), estimator, plan, count, seed, where)
    job = make_job(
        points, sigmas, estimator=estimator, labels=labels, queries=queries, seed=seed, form=form,
        antithetic=antithetic, precision=precision, label_drop=label_drop, device=device,
    )  # fmt: skip
    if relative_se is None and seconds is None:
        return job.curve(job.sums(advance=advance))
    return _until(job, relative_se, seconds, advance)


def _until(
    job: Job, relative_se: float | None, seconds: float | None, advance: Advance | None
) -> OptimalLoss:
    """Add quarters of the draws until an error target or a time budget ends it."""
    for name, value in (("relative_se", relative_se), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise JstarError(f"{name} = {value:g} is not allowed, it must be above 0")
    count, start = len(job.source_M), time.monotonic()
    done, parts = [], []
    for number, offset in enumerate((0, 2, 1, 3)):  # halves are evenly spread, too
        rows_M = np.arange(offset, count, ROUNDS)
        if len(rows_M) < 2:
            rows_M = np.arange(count)
        done.append(rows_M)
        parts.append(job.part(rows_M).sums(advance=advance))
        all_M = np.concatenate(done)
        order = np.argsort(all_M)
        sums = np.concatenate(parts, axis=1)[:, order]
        curve = job.part(all_M[order]).curve(sums)
        shown = curve.loss > RELEVANT * curve.variance
        if relative_se and (curve.stderr[shown] <= relative_se * curve.loss[shown]).all():
            return replace(curve, ended="relative_se")
        spent = time.monotonic() - start
        if len(all_M) >= count:
            break
        if seconds is not None and spent * (number + 2) / (number + 1) > seconds:
            return replace(curve, ended="seconds")
    return replace(curve, ended="queries")
