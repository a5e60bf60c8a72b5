"""A diagnosis in words: one paragraph that a person can act on."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.constants import CLEAR
from jstar.diagnose.measure import Diagnosis

MISSCALED = 0.05  # a slope this far from 1 is worth a sentence
BULK = 0.5  # of the weighted gap: its narrowest range of noise scales is named
FLOOR_MATTERS = 0.05  # of the mean image's loss: where J* is no longer next to nothing


def in_words(found: Diagnosis, problems: list[str]) -> str:
    """The paragraph. problems: what `check_adapter` found; they come first."""
    frame = found.frame
    sentences = [f"Warning: {problem}." for problem in problems]
    sentences.append(
        f"{found.name} was measured on {found.draws:,} training draws of {found.dataset} "
        f"({found.images:,} images) at {len(frame)} noise scales, sigma = "
        f"{frame['sigma'].iloc[0]:.3g} to {frame['sigma'].iloc[-1]:.3g}."
    )
    sentences += [_floor(found), _worst(found), _relative(frame), _mean_image(frame)]
    sentences += [_scale(frame), _offset(frame)]
    return " ".join(s for s in sentences if s)


def _floor(found: Diagnosis) -> str:
    share = found.floor_share
    return (
        f"Of its loss, weighted as '{found.process.name}' trains, {percent(share)} is the optimal "
        f"loss J*, which no training removes; the rest is gap."
    )


def _worst(found: Diagnosis) -> str:
    """Where half of the weighted gap lies."""
    if found.total("gap") <= 0:
        return "There is no gap."
    share, where = bulk(found.frame)
    return (
        f"{percent(share)} of the weighted gap lies at sigma = {where}: the noise scales to "
        "improve first."
    )


def bulk(frame: pd.DataFrame) -> tuple[float, str]:
    """(share, noise scales) of the shortest run of rows with at least half of the weighted gap."""
    part = (frame["weight"] * frame["gap"]).to_numpy()
    part = part / part.sum()
    _, start, stop = min(
        (stop - start, start, stop)
        for start in range(len(part))
        for stop in range(start + 1, len(part) + 1)
        if part[start:stop].sum() >= BULK
    )
    return float(part[start:stop].sum()), scales(frame["sigma"].to_numpy()[start:stop])


def _relative(frame: pd.DataFrame) -> str:
    """Where the floor is not next to nothing, the largest gap relative to it."""
    seen = frame[frame["optimal"] > FLOOR_MATTERS * frame["mean_image"]]
    if seen.empty:
        return ""
    ratio = seen["gap"] / seen["optimal"]
    top, last = seen.iloc[int(ratio.to_numpy().argmax())], seen.iloc[-1]
    text = (
        f"Where the floor counts, the loss is furthest above it at sigma = {top['sigma']:.3g}: by "
        f"{times(ratio.max(), 'J*')}"
    )
    if last["sigma"] > top["sigma"]:
        text += f"; at sigma = {last['sigma']:.3g} by {times(ratio.iloc[-1], 'J*')}"
    return text + "."


def _mean_image(frame: pd.DataFrame) -> str:
    excess = frame["loss"] - frame["mean_image"]
    worse_S = worse_than_mean_image(frame, excess, "excess_se")
    if not len(worse_S):
        return "Nowhere is it worse than the dataset's mean image."
    most = float((excess / frame["mean_image"]).max())
    return (
        f"It is worse than the dataset's mean image at sigma = {scales(worse_S)}, by up to "
        f"{percent(most)}: there it does harm."
    )


def worse_than_mean_image(frame: pd.DataFrame, excess: Any, error: str) -> NDArray[np.float64]:
    """Noise scales whose loss exceeds the mean image's by more than its error (a column) allows."""
    return np.asarray(frame.loc[excess > CLEAR * frame[error], "sigma"], dtype=np.float64)


def _scale(frame: pd.DataFrame) -> str:
    off = (frame["slope"] - 1).abs()
    odd = frame[(off > CLEAR * frame["slope_se"]) & (off > MISSCALED)]
    if odd.empty:
        return "Its output is not mis-scaled: the slope on the posterior mean is 1 within 5 %."
    worst = odd.iloc[int((odd["slope"] - 1).abs().to_numpy().argmax())]
    return (
        f"Its output is mis-scaled at sigma = {scales(odd['sigma'].to_numpy())}: the slope on the "
        f"posterior mean is {worst['slope']:.3g} ± {worst['slope_se']:.1g} at sigma = "
        f"{worst['sigma']:.3g}, not 1."
    )


def _offset(frame: pd.DataFrame) -> str:
    """Where most of the gap is one fixed image that is added to every output."""
    share = frame["offset"] / frame["gap"].clip(lower=1e-300)
    fixed = frame[share > BULK]
    if fixed.empty:
        return ""
    return (
        f"At sigma = {scales(fixed['sigma'].to_numpy())} most of the gap is an offset, the same "
        "image added to every output."
    )


def scales(sigma_S: NDArray[np.float64]) -> str:
    """0.05–1.2, or one number."""
    low, high = float(sigma_S.min()), float(sigma_S.max())
    return f"{low:.3g}" if low == high else f"{low:.3g}–{high:.3g}"


def percent(share: float) -> str:
    """A share with two digits, above 10 % without decimals."""
    value = 100 * share
    return f"{value:.2g} %" if value < 10 else f"{value:,.0f} %"


def times(ratio: float, of: str = "") -> str:
    """A ratio to `of`: in percent, from 2 on as so many times."""
    if ratio < 2:
        return f"{percent(ratio)} of {of}" if of else percent(ratio)
    return f"{ratio:,.3g} times {of}".rstrip()
