"""What whole studies of this design would find: all noise scales together, which share their runs.

A run that is lucky at one noise scale is so at its neighbours. The tests of one noise scale are
right whatever its neighbours do; how many noise scales get which verdict is not, and that is what a
study shows.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.scaling.joint import JointFit
from jstar.scaling.laws import Array
from jstar.scaling.verdict import VERDICTS, JointScale

LARGEST_SHARE = 0.99
MIDDLE = (0.1, 0.5, 0.9)  # quantiles of the numbers of noise scales


def errors_of(fit: JointFit | str) -> Array | None:
    """Weighted distances of the points from the law with a free floor, [P]; None without a law."""
    if isinstance(fit, str):
        return None
    points, fits, _ = fit
    theta = fits.theta["free"]
    law_P = theta[0, 4] + points.design.gap(theta)[0]
    return np.asarray((points.loss_P - law_P) * fits.white.weight_QP[0])


def shared_share(errors: list[Array | None]) -> float:
    """How much of the variance of their errors noise scales share: their mean correlation."""
    known = [one for one in errors if one is not None and one.std() > 0]
    pairs = [(a, b) for a, b in combinations(known, 2) if len(a) == len(b)]
    if not pairs:
        return 0.0
    mean = float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))
    return min(max(mean, 0.0), LARGEST_SHARE)


def expected_verdicts(scales: list[JointScale], confidence: float) -> dict[str, NDArray[np.str_]]:
    """Verdicts of whole simulated studies, by world [S, Q].

    All noise scales of a study are of one world, tested together and adjusted as the study's own.
    Empty where there is no J*.
    """
    from scipy.stats import false_discovery_control  # a third of a second, needed last

    told, level = {}, (1 - confidence) / 2
    tested = [s for s in scales if s.studies]
    for world in ("zero", "optimal") if tested else ():
        found = [s.studies[world] for s in tested]
        adjusted = {
            name: np.asarray(false_discovery_control([one.fine[name] for one in found], axis=0))
            for name in found[0].fine
        }
        told[world] = np.array([
            one.told(one.fine, {name: p_SQ[k] for name, p_SQ in adjusted.items()}, level, s.small)
            for k, (s, one) in enumerate(zip(tested, found, strict=True))
        ])  # fmt: skip
    return told


def expected_frame(scales: list[JointScale], confidence: float) -> pd.DataFrame:
    """How many noise scales get each verdict: here, and in studies of this design.

    One row per (world, verdict): found, and of the simulated studies the median and what 80 % of
    them lie between. world: `zero` no floor at any noise scale, `optimal` J* at all of them. Empty
    for one noise scale, or without J*.
    """
    columns = ["world", "verdict", "found", "low", "median", "high", "of"]
    rows: list[dict[str, Any]] = []
    for world, told_SQ in expected_verdicts(scales, confidence).items():
        for verdict in VERDICTS:
            count_Q = (told_SQ == verdict).sum(axis=0)
            low, median, high = np.quantile(count_Q, MIDDLE, method="nearest")
            found = sum(s.verdict == verdict for s in scales if s.studies)
            rows.append({"world": world, "verdict": verdict, "found": found, "low": int(low),
                         "median": int(median), "high": int(high), "of": len(told_SQ)})  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
