"""What a study's fits say, in at most thirteen lines for the console."""

from collections import Counter
from pathlib import Path

import numpy as np

from jstar.constants import TOTAL
from jstar.records import read_json, read_table
from jstar.scaling.noise_scales import ScaleFits, StudyFits
from jstar.scaling.paper_tables import NOT_STATED, WITHOUT_DATA, interval_text, number
from jstar.scaling.verdict import ABOVE, CORRECTED, FLOOR_OF, RAW, floor_says


def summary(study: StudyFits, out: Path) -> list[str]:
    """Lines on the total (or the largest noise scale), the verdicts' counts, and what is unsaid."""
    origin = read_json(out / "fits.json")
    scale = study.scales[-1]
    single = [s.joint.verdict for s in study.scales if s.sigma != TOTAL]
    name = "total" if scale.sigma == TOTAL else f"σ = {scale.sigma:.4g}"
    lines = [
        f"{name}: {scale.joint.verdict}; {scale.joint.reason}",
        f"  {origin['agreement'][str(scale.sigma)]}",
        f"  envelope: {scale.edge.status}, {len(scale.edge.crossings)} crossings of sizes",
        f"  free floor: {_floor(scale)}",
        f"  largest compute, predicted from the rest: {_ahead(scale)}",
    ]
    if np.isfinite(scale.joint.rates.coverage):
        rates = scale.joint.rates
        lines.append(
            f"  in this design: 'raw' in {rates('optimal', RAW):.0%} of studies with the floor J*, "
            f"'corrected' in {rates('zero', CORRECTED):.0%} of those without one"
        )
    if len(single) > 1:
        counts = ", ".join(f"{count} {word}" for word, count in Counter(single).most_common())
        lines.append(f"{len(single)} noise scales: {counts}")
        lines += _expected(study)
    if between := origin["optimal_interpolated"]:
        lines.append(
            f"J* is interpolated at {len(between)} of {len(single)} noise scales, with an error of "
            "its own; estimate it there"
        )
    if not origin["data"]:
        lines.append(f"images or tokens: {WITHOUT_DATA}")
    unsaid = [w for w, key in (("loss", "loss_unit"), ("compute", "flop_convention"))
              if not origin[key]]  # fmt: skip
    if unsaid:
        lines.append(f"what {' and '.join(unsaid)} are: {NOT_STATED} (--loss-name, "
                     "--flop-convention)")  # fmt: skip
    return [*lines, f"tables: {out}"]


def _expected(study: StudyFits) -> list[str]:
    """What whole studies of this design would call, were J* the floor everywhere."""
    rows = study.expected[study.expected["world"] == "optimal"].set_index("verdict")
    if rows.empty:
        return []
    ends = {word: f"{rows.loc[word, 'low']} to {rows.loc[word, 'high']}" for word in rows.index}
    return [
        f"  were J* the floor at all of them, 80 % of such studies would call {ends[CORRECTED]} "
        f"corrected, {ends[ABOVE]} above"
    ]


def verdict_table(fits: Path) -> list[str]:
    """The verdicts in a study's folder, a noise scale a line, as aligned text for the console."""
    verdicts = read_table(fits / "verdicts.csv", ("sigma", "verdict", "optimal"))
    laws = read_table(fits / "approaches.csv", ("sigma", "approach", "alpha", "status"))
    laws = laws[laws["approach"] == "joint"].set_index("sigma")
    lines = [f"{'sigma':>9}  {'verdict':<11}{'J*':>11}{'floor':>11}  alpha (joint law)"]
    for _, row in verdicts.iterrows():
        law = laws.loc[row["sigma"]]
        alpha = str(law["status"])
        if alpha == "converged":
            alpha = interval_text(law["alpha"], law["alpha_low"], law["alpha_high"])
        sigma = row["sigma"] if row["sigma"] == TOTAL else f"{float(row['sigma']):.4g}"
        optimal, floor = (
            number(value) if np.isfinite(value) else "–" for value in row[["optimal", "floor"]]
        )
        lines.append(f"{sigma:>9}  {row['verdict']:<11}{optimal:>11}{floor:>11}  {alpha}")
    total = verdicts.iloc[-1]
    lines += ["", f"{total['sigma']}: {total['verdict']}; {total['reason']}"]
    wrong = total["rate_raw_if_corrected"], total["rate_corrected_if_raw"]
    if np.isfinite(wrong).all():
        lines.append(
            f"this design says 'raw' in {wrong[0]:.0%} of studies with the floor J*, 'corrected' "
            f"in {wrong[1]:.0%} of those without one"
        )
    return lines


def _floor(scale: ScaleFits) -> str:
    judged = scale.measured or scale.joint
    free = judged.laws.get("free")
    if free is None:
        return f"none, {judged.status}"
    ends = free.E, free.low["E"], free.high["E"]
    if not np.isfinite(judged.optimal):
        return f"{interval_text(*ends)}, no J* to compare it with"
    says = floor_says(*ends, judged.optimal)
    return f"{interval_text(*ends)}, J* = {number(judged.optimal)}: {says}"


def _ahead(scale: ScaleFits) -> str:
    if not scale.held:
        return "too few points below it"
    law = scale.held[-1].by_floor[FLOOR_OF[scale.joint.verdict]]
    low, high = number(law.low), number(law.high)
    return f"measured / predicted {number(law.ratio)} in [{low}, {high}]: {law.says}"
