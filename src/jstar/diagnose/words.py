"""A diagnosis in words: one paragraph that a person can act on."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.constants import CLEAR
from jstar.diagnose.measure import Diagnosis
from jstar.diagnose.solver import Identification

MISSCALED = 0.05  # a slope this far from 1 is worth a sentence
BEATEN = 1.1  # times the loss of another denoiser: what is above is beaten by it
APART = 0.1  # of the training loss: a held-out loss this far above it is worth a word
WIDE = 0.25  # of the noise scales: so many make the verdict
WORTH = 0.02  # of the loss: a gain that is worth a word
BOUNDS = {
    "mean_image": "the dataset's mean image",
    "wiener": "a linear filter",
    "alone": "the mean of the other images",
    "local": "the mean of local patches",
}
BULK = 0.5  # of the weighted gap: its narrowest range of noise scales is named
FLOOR_MATTERS = 0.05  # of the mean image's loss: where J* is no longer next to nothing


def in_words(found: Diagnosis, adapter: Identification) -> str:
    """The paragraph: the verdict, what does harm, what may help; then what was measured."""
    frame = found.frame
    sentences = [f"Warning: {problem}." for problem in adapter.problems]
    if adapter.verdict != "wrong":
        sentences += [_verdict(frame), _cure(found), _harm(frame), *_floors_bind(frame)]
    sentences.append(
        f"{found.name} was measured on {found.draws:,} training draws of {found.dataset} "
        f"({found.images:,} images) at {len(frame)} noise scales, sigma = "
        f"{frame['sigma'].iloc[0]:.3g} to {frame['sigma'].iloc[-1]:.3g}."
    )
    sentences += [_floor(found), _worst(found), _relative(frame), _mean_image(frame)]
    sentences += [_scale(frame), _offset(frame)]
    return " ".join(s for s in sentences if s)


# --- the verdict ----------------------------------------------------------------------------------


def beaten(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Noise scales [S] at which a denoiser that cannot memorise does better: certain harm.

    The mean image (by more than the error of the difference), or the best of linear filter,
    patches and the mean of the other images (by more than BEATEN: other draws were asked).
    """
    worse = frame["loss"] - frame["mean_image"] > CLEAR * frame["excess_se"]
    seen, error = _unseen(frame)
    upper = frame["upper"]
    return np.asarray(worse | (seen - CLEAR * error > BEATEN * upper))


def remembered(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Noise scales [S] at which the held-out loss is above the training loss: memorising."""
    apart = frame["held_out"] - frame["loss"]
    error = np.hypot(frame["held_out_se"], frame["loss_se"])
    return np.asarray((apart > CLEAR * error) & (apart > APART * frame["loss"]))


def _unseen(frame: pd.DataFrame) -> tuple[Any, Any]:
    """The loss on images that were not trained on, where it is known, and its error."""
    known = frame["held_out"].notna()
    return (
        frame["held_out"].where(known, frame["loss"]),
        frame["held_out_se"].where(known, frame["loss_se"]),
    )


def denoiser_verdict(frame: pd.DataFrame) -> str:
    """memorising, weak, both, or no fault found; memorising takes WIDE of the noise scales."""
    found = []
    if remembered(frame).mean() >= WIDE:
        found.append("memorising")
    if beaten(frame).any():
        found.append("weak")
    return " and ".join(found) or "no fault found"


def _verdict(frame: pd.DataFrame) -> str:
    name = denoiser_verdict(frame)
    text = f"Verdict: {name}."
    known, worse = remembered(frame), beaten(frame)
    if "memorising" in name:
        most = float((frame["held_out"] / frame["loss"])[known].max())
        text += (
            f" At sigma = {runs(frame, known)} the loss on held-out images is up to "
            f"{times(most)} of that on training images: it remembers them there."
        )
    if worse.any():
        who = ["mean_image", "wiener", "alone", "local"]
        rows = frame[worse]
        best = rows[who].min(axis=1)
        ratio = float((_unseen(rows)[0] / best).max())
        name_S = rows[who].fillna(np.inf).idxmin(axis=1)
        names = " or ".join(BOUNDS[n] for n in who if (name_S == n).any())
        text += (
            f" At sigma = {runs(frame, worse)} it is worse than {names}, by a factor of up to "
            f"{ratio:.3g}: there it certainly does harm, and can be improved without memorising."
        )
    if name == "no fault found" and frame["upper"].notna().any():
        text += " Nowhere does a denoiser that cannot memorise do better than it."
    return text


def _cure(found: Diagnosis) -> str:
    """What may help where it is beaten, with the gain that was measured."""
    frame = found.frame
    worse = beaten(frame)
    if not worse.any():
        return ""
    gain = 1 - frame["loss_clipped"] / frame["loss"]
    text = []
    if float(gain[worse].max()) > WORTH:
        text.append(
            f"clamp x0 to the data's range when sampling (measured: the loss falls by up to "
            f"{percent(float(gain[worse].max()))} there)"
        )
    sigma = frame["sigma"].to_numpy()
    if found.process.prediction == "epsilon" and sigma[worse].max() > 3:
        text.append(
            "predict v or use EDM's preconditioning: an error of epsilon is multiplied by sigma"
        )
    width = np.gradient(np.log(sigma))
    drawn = float((found.process.law.density(sigma) * width)[worse].sum())
    text.append(
        f"train more there ('{found.process.name}' draws {percent(min(drawn, 1.0))} of its noise "
        "scales there)"
    )
    return f"What may help: {'; '.join(text)}."


def _harm(frame: pd.DataFrame) -> str:
    """Where the bound on the sampling error lies, if all of the gap counts."""
    share, where = bulk(frame.assign(part=frame["harm"]), "part")
    if not np.isfinite(share):
        return ""
    return (
        f"Of the bound on the sampling error (gap / sigma^2 over ln sigma) {percent(share)} lies "
        f"at sigma = {where}, as far as the gap to J* counts."
    )


def _floors_bind(frame: pd.DataFrame) -> list[str]:
    """Which floor binds at which noise scales, and what is left above it."""
    if frame["upper"].isna().all() and frame["floor_generalising"].isna().all():
        return []
    known = frame["floor_generalising"].notna().to_numpy()
    seen = _unseen(frame)[0]
    text = []
    if known.any():
        left = (seen / frame["floor_generalising"] - 1)[known].clip(lower=0.0)
        text.append(
            f"At sigma = {runs(frame, known)} the floor of a denoiser that generalises is known, "
            f"the limit of J* for more images; left above it is {percent(float(left.min()))} to "
            f"{percent(float(left.max()))} of it."
        )
    if not known.all():
        ratio = (seen / frame["upper"])[~known]
        text.append(
            f"At sigma = {runs(frame, ~known)} it cannot be told: J* is there the floor of "
            "memorising and its limit cannot be extrapolated; the loss is "
            f"{times(float(ratio.min()))} to {times(float(ratio.max()))} of that of the best "
            "denoiser tried here that cannot memorise."
        )
    return text


def runs(frame: pd.DataFrame, chosen: NDArray[np.bool_]) -> str:
    """The noise scales of a mask as ranges: 0.1-0.5 and 7-80."""
    sigma, edges = frame["sigma"].to_numpy(), np.diff(np.r_[0, chosen.astype(int), 0])
    pairs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    return ", ".join(scales(sigma[start:stop]) for start, stop in pairs)


# --- what was measured ----------------------------------------------------------------------------


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
    return f"{percent(share)} of the weighted gap to J* lies at sigma = {where}."


def bulk(frame: pd.DataFrame, column: str | None = None) -> tuple[float, str]:
    """(share, noise scales) of the shortest run of rows with half of a column, or weighted gap."""
    part = (frame["weight"] * frame["gap"] if column is None else frame[column]).to_numpy()
    if not part.sum() > 0:
        return float("nan"), ""
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
