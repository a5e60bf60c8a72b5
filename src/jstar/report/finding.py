"""What a study found, in two sentences with its error rates; and what speaks against it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from jstar.constants import TOTAL
from jstar.figures.joint import joint_law, joint_residuals, neighbours_alike
from jstar.figures.panels import AS_FITTED, WAVES
from jstar.figures.tables import StudyTables
from jstar.scaling.frontier import FrontierStatus
from jstar.scaling.joint_law import CONVERGED
from jstar.scaling.verdict import ABOVE, CORRECTED, RAW, UNDECIDED, WRONG

SAYS = {
    CORRECTED: "need a floor and J* is not excluded (corrected)",
    ABOVE: "need a floor above J* (above)",
    RAW: "need no floor and J* is excluded (raw)",
    UNDECIDED: "leave open in this design whether they need a floor (undecided)",
}
# The rates at which studies of the same design would say a word although it is wrong.
WRONG_RATES = {
    CORRECTED: ("rate_corrected_if_raw",),
    ABOVE: ("rate_corrected_if_raw", "rate_above_if_corrected"),
    RAW: ("rate_raw_if_corrected",),
}
CLOSURE = 0.02  # of ln N: as far as the trapezoids of a usual grid of noise scales are off


@dataclass(frozen=True)
class Check:
    """A question to the study, what was found, and whether it is good; None: not known."""

    question: str
    found: str
    good: bool | None


def finding(tables: StudyTables) -> str:
    """The verdicts over the noise scales with the rates of wrong ones, and what to expect."""
    rows = tables.verdicts[tables.verdicts["sigma"].astype(str) != TOTAL]
    if rows.empty:
        rows = tables.verdicts
    counts = rows["verdict"].value_counts()
    parts = [f"at {counts[word]} of {len(rows)} noise scales the losses {SAYS[word]}"
             for word in SAYS if word in counts]  # fmt: skip
    parts[1:] = [part.replace(f" of {len(rows)} noise scales the losses", " they")
                 for part in parts[1:]]  # fmt: skip
    sentence = f"{parts[0][0].upper()}{', '.join(parts)[1:]}"
    return f"{sentence}; {_errors(rows)}.{_expected(tables)}"


def total(tables: StudyTables) -> str:
    """The verdict on the total loss and why; empty without one."""
    rows = tables.verdicts[tables.verdicts["sigma"].astype(str) == TOTAL]
    return "" if rows.empty else f"Total loss: {rows['verdict'].iloc[0]}; {rows['reason'].iloc[0]}."


def share_text(share: float, digits: int = 0) -> str:
    """0.023 -> '2 %'. None of some hundred studies is no 0: 'under 1 %'."""
    if digits == 0 and share < 0.005:
        return "under 1 %"
    return f"{100 * share:.{digits}f} %"


def _at_most(share: float) -> str:
    text = share_text(share)
    return text if text.startswith("under") else f"at most {text}"


def _errors(rows: pd.DataFrame) -> str:
    said = [float(row[rate]) for _, row in rows.iterrows()
            for rate in WRONG_RATES.get(str(row["verdict"]), ())]  # fmt: skip
    if said:
        worst = float(np.nanmax([*said, 0.0]))
        return f"studies of this very design say such a word wrongly in {_at_most(worst)}"
    power = rows["rate_corrected_if_corrected"].astype(float)
    if power.isna().all():
        return "how often this design errs is not known without J* and a joint law"
    return (
        "if J* were the floor, studies of this very design would find it in "
        f"{share_text(power.min())} to {share_text(power.max())} of cases, by noise scale"
    )


def _expected(tables: StudyTables) -> str:
    """How many noise scales studies of this design would call corrected, were J* the floor."""
    frame = tables.expected
    found = frame[(frame["world"] == "optimal") & (frame["verdict"] == CORRECTED)]
    if found.empty:
        return ""
    row = found.iloc[0]
    return (
        f" Were J* the floor at all of them, 80 % of such studies would call {row['low']} to "
        f"{row['high']} of them corrected."
    )


def checks(tables: StudyTables) -> list[Check]:
    """What a hostile reader would ask first."""
    verdicts, joint = tables.verdicts, _joint(tables)
    count = len(verdicts)
    waving = [_waves(tables, sigma) for sigma in tables.scales]
    known = [wave for wave in waving if np.isfinite(wave)]
    competing = int((verdicts["frontier"] == FrontierStatus.FOUND).sum())
    quoted = int((joint["status"] == CONVERGED).sum())
    wrong = verdicts[["rate_corrected_if_raw", "rate_raw_if_corrected", "rate_above_if_corrected"]]
    words = verdicts["verdict"] != UNDECIDED
    worst = float(np.nanmax(wrong[words].to_numpy())) if words.any() else float("nan")
    coverage = float(verdicts["alpha_coverage"].min())
    held = verdicts["heldout_says"].value_counts()
    waves = sum(wave > WAVES for wave in known)
    return [
        *_closure(tables),
        Check("Do sizes cross, so that there is an envelope?",
              f"at {competing} of {count} rows", competing == count),
        Check("Can the joint law's exponent be quoted?", f"at {quoted} of {count} rows",
              quoted == count),
        Check(f"Is a given word wrong in at most {share_text(WRONG)} of studies of this design?",
              f"at most {share_text(worst, 1)}" if np.isfinite(worst) else "no word is given",
              worst <= WRONG if np.isfinite(worst) else None),
        Check(f"Does α's {share_text(tables.confidence)} interval hold the truth in such studies?",
              f"at least {share_text(coverage, 1)}" if np.isfinite(coverage) else "not known",
              coverage > 2 * tables.confidence - 1 if np.isfinite(coverage) else None),
        Check("Are the joint law's residuals noise along a run?",
              f"they wave at {waves} of {len(known)} rows (neighbours alike by more than "
              f"{WAVES:g})", waves == 0 if known else None),
        Check("Was the largest compute predicted from the rest?",
              ", ".join(f"{n} {says}" for says, n in held.items()),
              "miss" not in held if {"hit", "miss"} & {*held.index} else None),
        _choices(tables),
    ]  # fmt: skip


def _closure(tables: StudyTables) -> list[Check]:
    got, expected = (tables.facts.get(key) for key in ("closure", "log_count"))
    if got is None or expected is None:
        return []
    off = abs(float(got) / float(expected) - 1)
    found = f"{got:.4f} nats for {expected:.4f}, {share_text(off, 1)} off"
    question = "Does the integral of J* come to the entropy of the data (I-MMSE)?"
    return [Check(question, found, off <= CLOSURE)]


def _joint(tables: StudyTables) -> pd.DataFrame:
    return tables.approaches[tables.approaches["approach"] == "joint"]


def _waves(tables: StudyTables, sigma: float | str) -> float:
    law = joint_law(tables, sigma)
    return float("nan") if law is None else neighbours_alike(joint_residuals(tables, sigma, law))


def _choices(tables: StudyTables) -> Check:
    frame = tables.sensitivity
    base = frame[frame["choice"] == AS_FITTED].set_index("sigma")
    others = frame[(frame["choice"] != AS_FITTED) & frame["alpha"].notna()]
    low, high = (others["sigma"].map(base[end]) for end in ("alpha_low", "alpha_high"))
    outside = int(((others["alpha"] < low) | (others["alpha"] > high)).sum())
    return Check("Does the envelope's exponent stay in its interval when one choice changes?",
                 f"{outside} of {len(others)} fits leave it",
                 outside == 0 if len(others) else None)  # fmt: skip
