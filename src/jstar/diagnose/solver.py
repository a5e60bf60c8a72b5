"""Is an adapter right? Its network is read in all ways that its parts allow, and the best is named.

A wrong adapter still returns images, and at small noise all readings look alike: x is nearly the
answer. So readings are held against each other at noise scales on both sides of the data's own,
by their loss on the same draws. A reading counts as right only if it beats one linear filter for
all pixels; another one is named only if it does and is far better than what the adapter claims.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.diagnose.adapters import Adapter, guarded
from jstar.diagnose.readings import (
    CONVERTED,
    COSINE_T,
    DENOISER,
    DIRECT,
    FLOW,
    GIVEN,
    LINEAR,
    OF_PROCESS,
    OUTPUTS,
    PREDICTIONS,
    RANGED,
    SIGMA_DATA,
    TABLES,
    UNITS,
    Affine,
    Network,
    NetworkReading,
    Parts,
    decode,
    inside,
    table_reading,
)
from jstar.diagnose.sample import Sample
from jstar.diagnose.steadiness import blind, unsteady

Floats = NDArray[np.float64]

FIRST = 4  # draws a noise scale, of every reading; of the best all draws
IN_OTHER_UNITS, FINALISTS = 8, 6  # the best calls that are tried in other data, on all draws
# Mean over the noise scales of ln(loss / loss of the linear filter), each cut to these.
LOWEST, HIGHEST = -4.0, 3.0
GOOD = -0.1  # a reading's score below which it denoises at all ...
FAIR = 0.5  # ... and the share of the noise scales at which it must beat the linear filter
WORST = 2.0  # times the linear filter's loss: a reading worse than that anywhere is not named
# By so much must another reading's score be better, and by CLEAR standard errors; or by so much at
# the half of the noise scales where they differ most, by LEAST in the mean, and nowhere worse by
# LEAST. Right readings of the networks of benchmarks/diagnose_adapters.py and of one that
# memorises are beaten by at most 0.10 in the mean, and then elsewhere worse by 0.29.
MARGIN, LEAST = 0.3, 0.1
CLEAR = 4.0
TIE = 0.06  # scores that differ by less: the reading with fewer changes is named


@dataclass(frozen=True)
class Identification:
    """What is to be thought of an adapter.

    verdict: right, wrong or unsure. reading: the parts that fit best (of `right` those that the
    adapter claims). problems: a sentence each; of `wrong` what to change.
    """

    verdict: str
    reading: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """Losses of one reading, [S] noise scales x [Q] draws, beside the linear filter's.

    base: what the adapter has in the place of `reading`.
    """

    base: NetworkReading
    reading: NetworkReading
    loss_SQ: Floats
    linear_SQ: Floats

    @property
    def ratio_S(self) -> Floats:
        return np.asarray(self.loss_SQ.mean(1) / self.linear_SQ.mean(1))

    @property
    def score(self) -> float:
        """0: as good as the linear filter; below: better."""
        return float(_cut(self.ratio_S).mean())

    @property
    def good(self) -> bool:
        return self.score < GOOD and bool((self.ratio_S < 1).mean() >= FAIR)

    def error_against(self, other: "Scored") -> float:
        """Standard error of the difference of two scores: the jackknife over draws."""
        count = self.loss_SQ.shape[1]
        left_out = [np.arange(count) != m for m in range(count)]

        def score(one: Scored, keep: NDArray[np.bool_]) -> float:
            part = one.loss_SQ[:, keep].mean(1) / one.linear_SQ[:, keep].mean(1)
            return float(_cut(part).mean())

        apart = np.array([score(self, keep) - score(other, keep) for keep in left_out])
        return float(np.sqrt((count - 1) / count * np.square(apart - apart.mean()).sum()))


def _cut(ratio_S: Floats) -> Floats:
    return np.clip(np.log(np.maximum(ratio_S, 1e-30)), LOWEST, HIGHEST)


@torch.inference_mode()
def identify(adapter: Adapter, sample: Sample) -> Identification:
    """Whether `adapter` reads its network right, and if not, which reading fits.

    Raises JstarError where the denoiser cannot be used at all: it fails, or returns another shape,
    another type, or numbers that are not finite.
    """
    denoise = guarded(adapter.denoise)
    shaky = unsteady(denoise, sample, adapter)
    if shaky:  # what else is wrong can only be told once that is right
        return Identification("wrong", "none: see problems", (shaky,))
    table = Search.of(adapter, sample)
    claim, best = table.claimed(), table.best()
    ignored = blind(denoise, sample, adapter)
    if best.good and best.ratio_S.max() < WORST and _far_better(best, claim):
        return Identification("wrong", best.reading.words(), (_problem(claim, best, table),))
    # Where jstar put the adapter together it passes sigma on: the network itself is blind.
    if ignored and adapter.parts is None and (claim.ratio_S > 1).any():
        return Identification("wrong", "none: sigma is ignored", (ignored,))
    if claim.good:
        return Identification("right", claim.reading.words())
    return Identification("unsure", claim.reading.words(), tuple(_doubts(claim, table)))


def _far_better(best: Scored, claim: Scored) -> bool:
    """By MARGIN in the mean over the noise scales, or where the two differ and nowhere worse."""
    gain_S = _cut(claim.ratio_S) - _cut(best.ratio_S)
    mean, half = float(gain_S.mean()), len(gain_S) // 2
    apart = float(np.sort(gain_S)[half:].mean())
    where_they_differ = apart > MARGIN and mean > LEAST and gain_S.min() > -LEAST
    return (mean > MARGIN or where_they_differ) and mean > CLEAR * claim.error_against(best)


# --- all readings, scored -------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """The readings of one network that were tried, the best of them on all draws."""

    sigma_S: Floats
    claim: NetworkReading
    scored: tuple[Scored, ...]
    input_SQ: Floats  # loss of the noisy image itself

    @classmethod
    def of(cls, adapter: Adapter, sample: Sample) -> "Search":
        """Score every reading on a few draws, then those of the best calls on all draws."""
        parts = adapter.parts or Parts(_plain(adapter), DENOISER)
        sigma_S, data = sample.places(adapter.sigma_min, adapter.sigma_max), affines(sample)
        few = _Draws(sample, sigma_S, slice(None, None, max(1, len(sample.x0_MCHW) // FIRST)))
        every = _Draws(sample, sigma_S, slice(None))
        tried = _Tried(few, data)
        tried.add((parts, one) for one in _inputs(parts))
        if adapter.parts is None:
            tried.add((p, one) for p in _guesses(adapter) for one in _times_of(p))
        own = _input_of(parts.claim)
        tried.add((p, replace(one, data=name)) for p, one in
                  [(parts, own), *tried.best(IN_OTHER_UNITS)] for name in data)  # fmt: skip
        final = [(parts, own), *tried.best(FINALISTS)]
        scored = [s for p, one in final for s in every.score(p, one, data)]
        return cls(sigma_S, parts.claim, tuple(scored), every.input_SQ())

    def claimed(self) -> Scored:
        return next(one for one in self.scored if one.reading == one.base == self.claim)

    def best(self) -> Scored:
        """The reading with the fewest changes among those that tie with the best."""
        top = min(one.score for one in self.scored)
        tied = [one for one in self.scored if one.score <= top + TIE]
        return min(tied, key=lambda one: (len(one.base.changes(one.reading)), one.score))


def affines(sample: Sample) -> dict[str, Affine]:
    """Units that a network's images may have, as functions of ours."""
    known = {
        "-1..1": Affine(1.0),
        "0..1": Affine(0.5, 0.5),
        "0..255": Affine(127.5, 127.5),
        "times 2": Affine(2.0),
        "times 1/2": Affine(0.5),
        "times -1 (black and white swapped)": Affine(-1.0),
        "zero mean, unit variance": Affine(1 / sample.spread, -sample.level / sample.spread),
        "zero mean, unit variance turned to -1..1": Affine(sample.spread, sample.level),
        "times 2, less 1 (from 0..1 to -1..1)": Affine(2.0, -1.0),
        "times 1/127.5, less 1 (from 0..255 to -1..1)": Affine(1 / 127.5, -1.0),
    }
    if len(sample.mean_CHW) == 4:  # latents
        known |= {"times 0.18215": Affine(0.18215), "divided by 0.18215": Affine(1 / 0.18215)}
    return known


def _plain(adapter: Adapter) -> Network:
    """A denoiser as a network that is told sigma."""
    return lambda x, sigma, *labels: adapter.denoise(x, sigma, labels[0] if labels else None)


def _input_of(reading: NetworkReading) -> NetworkReading:
    """What decides the call of the network: all but prediction and sign."""
    return replace(reading, prediction="x0", sign=1)


def _inputs(parts: Parts) -> Iterator[NetworkReading]:
    """Entry and time of the readings that are tried, once each."""
    claim = _input_of(parts.claim)
    times = [(law, unit) for law in (*_tables(parts), *RANGED) for unit in UNITS]
    times += [(law, "as it is") for law in DIRECT]
    usual = list(_usual(claim, parts))
    single = [replace(claim, law=law, unit=unit) for law, unit in times]
    single += [replace(claim, entry=one.entry) for one in usual]
    if claim.entry == OF_PROCESS["edm"].entry:
        single += [replace(claim, sigma_data=known) for known in SIGMA_DATA]
    yield from dict.fromkeys([claim, *usual, *single])


def _tables(parts: Parts) -> Iterable[str]:
    return (*TABLES, GIVEN) if parts.steps_T is not None else tuple(TABLES)


def _usual(claim: NetworkReading, parts: Parts) -> Iterator[NetworkReading]:
    """Entries with the times that go with them."""
    preserving, flow, edm = (OF_PROCESS[name].entry for name in ("vp", "fm", "edm"))
    for law in (*_tables(parts), COSINE_T):
        yield from (replace(claim, entry=preserving, law=law, unit=unit) for unit in UNITS)
    yield from (replace(claim, entry=flow, law=FLOW, unit=unit) for unit in UNITS)
    for law in DIRECT:
        for entry in ("x", edm):
            yield replace(claim, entry=entry, law=law, unit="as it is")


def _guesses(adapter: Adapter) -> Iterator[Parts]:
    """The network inside a plain function, if it was made as usual of a usual network."""
    for claim in (table_reading("epsilon", LINEAR), table_reading("v", LINEAR),
                  OF_PROCESS["v"], OF_PROCESS["fm"], OF_PROCESS["edm"]):  # fmt: skip
        yield Parts(inside(adapter.denoise, claim), claim)


def _times_of(parts: Parts) -> Iterator[NetworkReading]:
    """Other times of a guessed network; its own is the plain function."""
    claim = _input_of(parts.claim)
    if claim.law in DIRECT:
        yield from (replace(claim, law=law) for law in DIRECT if law != claim.law)
    else:
        times = [(law, unit) for law in (*TABLES, *RANGED) for unit in UNITS]
        yield from (replace(claim, law=w, unit=u) for w, u in times
                    if (w, u) != (claim.law, claim.unit))  # fmt: skip


class _Draws:
    """Noisy draws at all places, in one batch, and the loss of a reading on them."""

    def __init__(self, sample: Sample, sigma_S: Floats, part: slice) -> None:
        x0, noise = sample.x0_MCHW[part], sample.noise_MCHW[part]
        self.shape = (len(sigma_S), len(x0))
        self.sigma = torch.from_numpy(sigma_S.repeat(len(x0))).float().to(x0.device)
        self.x0 = x0.repeat(len(sigma_S), *[1] * (x0.ndim - 1))
        wide = self.sigma.reshape(-1, *[1] * (x0.ndim - 1))
        self.x = self.x0 + wide * noise.repeat(len(sigma_S), *[1] * (x0.ndim - 1))
        labels = sample.labels_M
        self.labels = None if labels is None else labels[part].repeat(len(sigma_S))
        self.linear_SQ = self._loss(sample.linear()(self.x, self.sigma, None))

    def _loss(self, denoised: Tensor) -> Floats:
        square = (denoised - self.x0).flatten(1).square().mean(1, dtype=torch.float64)
        loss: Floats = square.nan_to_num(nan=np.inf).cpu().numpy().reshape(self.shape)
        return loss

    def input_SQ(self) -> Floats:
        return self._loss(self.x)

    def score(self, parts: Parts, one: NetworkReading, data: dict[str, Affine]) -> Iterator[Scored]:
        """Every prediction and sign of one way to call the network; none if it cannot be."""
        try:
            out = parts.raw(one, data[one.data], self.x, self.sigma, self.labels)
        except Exception:  # anything may go wrong in foreign code that is called another way
            return
        if not isinstance(out, Tensor) or out.shape != self.x.shape:
            return
        for prediction, sign in _decodings(parts.claim):
            reading = replace(one, prediction=prediction, sign=sign)
            denoised = decode(reading, data[one.data], self.x, self.sigma, out.float())
            yield Scored(parts.claim, reading, self._loss(denoised), self.linear_SQ)


class _Tried:
    """Calls of networks that were tried, and the best score of each."""

    def __init__(self, draws: _Draws, data: dict[str, Affine]) -> None:
        self.draws, self.data = draws, data
        self.found: dict[tuple[int, NetworkReading], tuple[float, Parts]] = {}

    def add(self, calls: Iterable[tuple[Parts, NetworkReading]]) -> None:
        for parts, one in list(calls):
            key = (id(parts.network), one)
            if key not in self.found:
                scores = [s.score for s in self.draws.score(parts, one, self.data)]
                self.found[key] = (min(scores, default=np.inf), parts)

    def best(self, count: int) -> list[tuple[Parts, NetworkReading]]:
        """The calls with the lowest scores."""
        ranked = sorted(self.found.items(), key=lambda item: item[1][0])[:count]
        return [(parts, one) for (_, one), (_, parts) in ranked]


def _decodings(claim: NetworkReading) -> Iterator[tuple[str, int]]:
    yield from ((name, sign) for name in PREDICTIONS for sign in (1, -1))
    if claim == DENOISER:
        yield from ((name, 1) for name in (*OUTPUTS, *CONVERTED))


# --- in words -------------------------------------------------------------------------------------

PART_WORDS = {
    "prediction": "the network predicts {0}, not {1}",
    "sign": "the sign of its output is flipped",
    "entry": "its input is {0}, not {1}",
    "sigma_data": "its sigma_data is {0:g}, not {1:g}",
    "law": "its time is {0}, not {1}",
    "data": "its images are {0}, not {1}",
}


def _problem(claim: Scored, best: Scored, table: Search) -> str:
    """What to change, and how much better it is."""
    changed = best.base.changes(best.reading)
    if "law" in changed and "unit" in changed:
        changed.remove("unit")
    words = []
    for name in changed:
        if name in ("law", "unit"):
            pair = best.reading.time, best.base.time
        else:
            pair = getattr(best.reading, name), getattr(best.base, name)
        words.append(PART_WORDS["law" if name == "unit" else name].format(*pair))
    if not words:
        words = [f"the network is read right as {best.reading.words()}"]
    ratio_S = claim.loss_SQ.mean(1) / best.loss_SQ.mean(1)
    place = int(ratio_S.argmax())
    return (
        f"the adapter is wrong: {'; '.join(words)}. Read so, the loss is "
        f"{_times(float(ratio_S[place]))} times smaller at sigma = {table.sigma_S[place]:.3g} and "
        f"{_times(float(np.exp(np.log(ratio_S).mean())))} times in the mean over sigma = "
        f"{table.sigma_S[0]:.3g} to {table.sigma_S[-1]:.3g}"
    )


def _doubts(claim: Scored, table: Search) -> Iterator[str]:
    """Of an adapter that denoises no better than a linear filter, and no reading of it does."""
    above_S = claim.loss_SQ.mean(1) > table.input_SQ.mean(1)
    end = (
        "and no other reading of the network fits: it is hardly trained, or wrong in a way that "
        "is not tried"
    )
    if above_S.any():
        where = ", ".join(f"{s:.3g}" for s in table.sigma_S[above_S])
        yield (
            f"the denoiser is worse than returning its noisy input unchanged at sigma = {where}, "
            f"{end}"
        )
    else:
        yield (
            "the denoiser is no better than one linear filter for all pixels at most noise scales, "
            f"{end}"
        )


def _times(factor: float) -> str:
    return f"{factor:.2g}" if factor < 1000 else "over 1000"
