"""Two or more denoisers of one dataset on the same draws: which is better, at which noise scales?

E|D - x0|^2 - J* = E|D - D*|^2 for each, so the losses of two differ by what their gaps differ by.
The difference is taken draw by draw: what makes a draw hard for both is not in its error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.constants import CONFIDENCE
from jstar.diagnose.measure import Diagnosis
from jstar.diagnose.stage import Finding, as_rows
from jstar.diagnose.words import percent, runs
from jstar.errors import JstarError
from jstar.figures.denoiser import draw_side_by_side
from jstar.noise import total_weights
from jstar.records import provenance, write_table, write_text
from jstar.typeset import markdown

COLUMNS = (
    "sigma", "first", "other", "gap_first", "gap_other", "difference", "difference_se", "better",
    "held_out_first", "held_out_other", "held_out_difference", "held_out_difference_se",
    "better_held_out",
)  # fmt: skip
TOTALS = ("first", "other", "sum", "value_first", "value_other", "difference", "difference_se",
          "better")  # fmt: skip
UNSURE = "cannot tell"


@dataclass(frozen=True)
class SideBySide:
    """What `jstar diagnose` found of several denoisers, and of each against the first.

    frame: COLUMNS, one row a pair and noise scale; totals: TOTALS, sums over the noise scales.
    difference: other - first, so below 0 the other is better.
    """

    findings: tuple[Finding, ...]
    frame: pd.DataFrame
    totals: pd.DataFrame
    words: str

    def summary(self) -> str:
        """The paragraphs in words: the comparison, then each denoiser's own."""
        return "\n\n".join([self.words, *(found.words for found in self.findings)])

    def to_frame(self) -> pd.DataFrame:
        """One row a pair and noise scale, the columns of comparison.csv."""
        return self.frame.copy()

    def plot(self, stem: str | Path = "comparison") -> None:
        """Draw it to `stem`.png and .pdf."""
        draw_side_by_side([(f.diagnosis.name, f.diagnosis.frame) for f in self.findings],
                          self.frame, Path(stem))  # fmt: skip


def side_by_side(findings: Sequence[Finding]) -> SideBySide:
    """Compare every finding with the first. Raises JstarError where there is nothing to compare."""
    first, *others = (found.diagnosis for found in findings)
    if not others:
        raise JstarError("diagnose: one denoiser is no comparison, give at least two")
    frame = pd.concat([_pair(first, other) for other in others], ignore_index=True)
    totals = pd.DataFrame(
        [row for other in others for row in _totals(first, other)], columns=list(TOTALS)
    )
    words = " ".join(_in_words(first, other, frame, totals) for other in others)
    return SideBySide(tuple(findings), frame, totals, words)


def write_side_by_side(found: SideBySide, out: Path) -> None:
    """Write comparison.csv, .json, .md, .png and .pdf to `out`."""
    text = "\n\n".join(
        [
            "# Denoisers side by side", found.words,
            markdown(as_rows(found.totals), "Sums over the noise scales; other - first."),
            markdown(as_rows(found.frame), "Differences on the same draws, with standard errors."),
        ]
    )  # fmt: skip
    write_text(out / "comparison.md", text)
    found.plot(out / "comparison")
    facts = provenance(
        denoisers=[f.diagnosis.name for f in found.findings],
        totals=found.totals.to_dict("records"),
        words=found.words,
    )
    beside = [out / f"comparison.{kind}" for kind in ("md", "png", "pdf")]
    write_table(out / "comparison.csv", found.frame, facts, beside)


def _shared(first: Diagnosis, other: Diagnosis) -> tuple[list[int], list[int]]:
    """The rows of both at the noise scales that both were asked at."""
    place = {float(s): k for k, s in enumerate(other.frame["sigma"])}
    rows = [k for k, s in enumerate(first.frame["sigma"]) if float(s) in place]
    if len(rows) < 2:
        raise JstarError(
            f"diagnose: '{first.name}' and '{other.name}' share {len(rows)} noise scales, at least "
            "2 are needed to compare them"
        )
    return rows, [place[float(first.frame["sigma"].iloc[k])] for k in rows]


def _better(first: str, other: str, difference: Any, error: Any, tries: int) -> NDArray[Any]:
    """Names, with 5 % of wrong ones among `tries` statements at most (Bonferroni)."""
    clear = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * tries))
    apart, reach = np.asarray(difference), clear * np.asarray(error)
    return np.where(apart > reach, first, np.where(apart < -reach, other, UNSURE))


def _paired(first_SM: Any, other_SM: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of other - first over the draws [S], and its standard error."""
    apart_SM = other_SM - first_SM
    error_S = apart_SM.std(axis=1, ddof=1) / np.sqrt(apart_SM.shape[1])
    return apart_SM.mean(axis=1), error_S


def _pair(first: Diagnosis, other: Diagnosis) -> pd.DataFrame:
    a, b = _shared(first, other)
    apart, error = _paired(first.gap_SM[a], other.gap_SM[b])
    unseen = unseen_se = np.full(len(a), np.nan)
    if first.held_out_SM is not None and other.held_out_SM is not None:
        unseen, unseen_se = _paired(first.held_out_SM[a], other.held_out_SM[b])
    left, right = first.frame.iloc[a], other.frame.iloc[b]
    names = (first.name, other.name)
    return pd.DataFrame(
        {
            "sigma": left["sigma"].to_numpy(), "first": first.name, "other": other.name,
            "gap_first": left["gap"].to_numpy(), "gap_other": right["gap"].to_numpy(),
            "difference": apart, "difference_se": error,
            "better": _better(*names, apart, error, len(a)),
            "held_out_first": left["held_out"].to_numpy(),
            "held_out_other": right["held_out"].to_numpy(),
            "held_out_difference": unseen, "held_out_difference_se": unseen_se,
            "better_held_out": _better(*names, unseen, unseen_se, len(a)),
        },
        columns=list(COLUMNS),
    )  # fmt: skip


def _totals(first: Diagnosis, other: Diagnosis) -> list[tuple[Any, ...]]:
    """Gap as the first's process weighs it, and the bound on the sampling error."""
    a, b = _shared(first, other)
    sigma_S = first.frame["sigma"].to_numpy()[a]
    bound_S = np.gradient(np.log(sigma_S)) / sigma_S**2
    weights = {f"gap, as '{first.process.name}' trains": total_weights(first.process, sigma_S),
               "bound on the sampling error": bound_S}  # fmt: skip
    rows = []
    for name, weight_S in weights.items():
        one_M, two_M = weight_S @ first.gap_SM[a], weight_S @ other.gap_SM[b]
        apart, error = _paired(one_M[None], two_M[None])
        better = _better(first.name, other.name, apart, error, 1)
        rows.append((first.name, other.name, name, float(one_M.mean()), float(two_M.mean()),
                     float(apart[0]), float(error[0]), str(better[0])))  # fmt: skip
    return rows


def _in_words(first: Diagnosis, other: Diagnosis, frame: pd.DataFrame, totals: pd.DataFrame) -> str:
    rows = frame[frame["other"] == other.name].reset_index(drop=True)
    text = f"{other.name} against {first.name}, on the same draws: "
    parts = [f"it is {how} at sigma = {runs(rows, (rows['better'] == who).to_numpy())}"
             for how, who in (("better", other.name), ("worse", first.name))
             if (rows["better"] == who).any()]  # fmt: skip
    unsure = (rows["better"] == UNSURE).to_numpy()
    if unsure.any():
        parts.append(f"it cannot be told at sigma = {runs(rows, unsure)}")
    text += "; ".join(parts) + "."
    for row in totals[totals["other"] == other.name].to_dict("records"):
        share, error = (row[name] / row["value_first"] for name in ("difference", "difference_se"))
        how = {first.name: "larger", other.name: "smaller"}.get(row["better"])
        text += f" Its {row['sum']} is " + (
            f"{percent(abs(share))} ± {percent(error)} {how}."
            if how else f"the same within errors ({100 * share:+.2g} ± {100 * error:.2g} %)."
        )  # fmt: skip
    if rows["held_out_difference"].notna().any():
        unseen = rows["better_held_out"]
        wins = [f"{who} at sigma = {runs(rows, (unseen == who).to_numpy())}"
                for who in (other.name, first.name) if (unseen == who).any()]  # fmt: skip
        text += " On held-out images the better one is " + (
            "; ".join(wins) + "." if wins else "nowhere to be told."
        )
    return text
