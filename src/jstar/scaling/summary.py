"""What a study's fits say, in at most twelve lines for the console."""

from collections import Counter
from pathlib import Path

import numpy as np

from jstar.constants import TOTAL
from jstar.records import read_json
from jstar.scaling.noise_scales import ScaleFits, StudyFits
from jstar.scaling.paper_tables import NOT_STATED, WITHOUT_DATA, interval_text, number
from jstar.scaling.verdict import CORRECTED, FLOOR_OF, RAW, floor_says


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
