"""The theory of a study's networks: bounds over choices of steps, and the best steps for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jstar.curve import read_curve
from jstar.errors import JstarError
from jstar.manifest import CARD, UNIT, parents, require_together, say_unrecorded
from jstar.records import provenance, read_any_table, read_table, write_table
from jstar.sampling.steps import noise_steps, theory_rho
from jstar.sampling.theory.bound import (
    FROZEN,
    Floats,
    OfSigma,
    above_zero,
    discretisation_error,
    initial_error,
    score_error,
)
from jstar.sampling.theory.curves import check_table, gap_curve

STEPS = (8, 12, 18, 32, 64, 128, 256)
RHOS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 14.0, 20.0)
EDM_RHO = 7.0
NETWORK = ("run", "model", "params", "seed", "snapshot", "images", "flops", "ema")
REQUIRED = ("run", "params", "flops", "sigma", "gap")
PARTS = ("initial", "score", "discretisation", "total")
TRIAL = ("sampler", "steps", "spacing", "rho", "sigma_min", "sigma_max")


@dataclass(frozen=True)
class DataFacts:
    """What the bound needs of the data: J*, dimensions, E x0^2 a dimension."""

    optimal: OfSigma
    sigma_min: float
    sigma_max: float
    dim: int
    second_moment: float


@dataclass(frozen=True)
class BoundedSteps:
    """Noise scales and what does not depend on a network, in nats an image."""

    sampler: str
    steps: int
    spacing: str
    rho: float
    sigma_K: Floats
    initial: float
    discretisation: float

    def parts(self, gap: OfSigma, dim: int) -> tuple[float, ...]:
        """Values of `PARTS`."""
        score = dim * score_error(self.sampler, self.sigma_K, gap)
        parts = (self.initial, score, self.discretisation)
        return (*parts, sum(parts))


def read_data_facts(curve: Path, dim: int | None, second_moment: float | None) -> DataFacts:
    """J* from curve.csv; dimensions and variance from its .json, where they are not given.

    Without a second moment the data count as centred: E_I is then a little too small.
    """
    known = read_curve(curve)
    check_table(known.sigma, known.loss, "J*")
    dim = dim or known.dim
    if not dim:
        raise JstarError(
            f"{curve.with_suffix('.json')}: does not say the dimensions of an image, give --dim"
        )
    return DataFacts(
        lambda sigma: known.at(sigma)[0],
        float(known.sigma[0]),
        float(known.sigma[-1]),
        int(dim),
        known.variance if second_moment is None else second_moment,
    )


def write_theory(
    losses: list[Path],
    curve: Path,
    out: Path,
    *,
    quality: list[Path] | None = None,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    ema: float | None = None,
    dim: int | None = None,
    second_moment: float | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write bounds.csv, steps.csv and, with `quality`, theory_quality.csv to the folder `out`.

    bounds.csv: E_I, E_S, E_D (nats an image) of every run's last snapshot, for all step counts and
    spacings. steps.csv: the best spacing for every snapshot.
    theory_quality.csv: the bound of those rows of `quality` whose sampler has one.
    The noise scales are cut to those measured: nothing is extrapolated.
    Raises JstarError: one sentence with file and column.
    """
    tables = [*losses, *(quality or [])]
    require_together([*tables, curve], CARD)
    require_together([*losses, curve], UNIT)
    frame = read_gaps(losses, ema)
    data = read_data_facts(curve, dim, second_moment)
    measured = frame["sigma"].to_numpy()
    low = max(sigma_min, data.sigma_min, float(measured.min()))
    high = min(sigma_max, data.sigma_max, float(measured.max()))
    every = _parts_frame(frame, data, low, high)
    chosen = best_steps(every)
    parts = every[every["flops"] == every.groupby("run")["flops"].transform("max")]
    facts = provenance(
        losses=[str(p) for p in losses],
        optimal=str(curve),
        dim=data.dim,
        second_moment=data.second_moment,
        sigma_min=low,
        sigma_max=high,
        theory_rho=theory_rho(low, high),
        unit="nats an image; KL of the paths from sigma_max to sigma_min",
        **parents(out / "bounds.csv", [*tables, curve]),
    )
    write_table(out / "bounds.csv", parts, facts)
    write_table(out / "steps.csv", chosen, facts)
    if quality:
        write_table(out / "theory_quality.csv", bounds_of_trials(quality, frame, data), facts)
    say_unrecorded([*tables, curve])
    return parts, chosen


def read_gaps(losses: list[Path], ema: float | None) -> pd.DataFrame:
    """Measured gaps of all tables: the training split, one EMA length, no totals."""
    parts = []
    for path in losses:
        frame = read_any_table(path, REQUIRED)
        if "split" in frame:
            frame = frame[frame["split"] == "train"]
        frame = frame[frame["sigma"].astype(str) != "total"]
        if "ema" in frame:
            length = ema if ema is not None else frame["ema"].iloc[0]
            frame = frame[np.isclose(frame["ema"], length)]
        frame = frame.assign(sigma=frame["sigma"].astype(float))
        if frame.empty or frame["gap"].isna().any():
            raise JstarError(f"{path}: the column 'gap' lacks values for the training split")
        for name, value in (("model", frame["run"]), ("seed", 0), ("ema", np.nan),
                            ("images", np.nan), ("snapshot", frame["flops"])):  # fmt: skip
            if name not in frame:
                frame[name] = value
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _networks(frame: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], OfSigma]]:
    """(columns of NETWORK, gap) of every snapshot."""
    for _, rows in frame.groupby(["run", "snapshot"], sort=False):
        rows = rows.sort_values("sigma")
        gap = gap_curve(rows["sigma"].to_numpy(float), rows["gap"].to_numpy(float))
        yield tuple(rows.iloc[0][list(NETWORK)]), gap


def _step_choices(data: DataFacts, low: float, high: float) -> list[BoundedSteps]:
    kinds = [*(("polynomial", rho) for rho in RHOS), ("exponential", np.nan)]
    return [
        bounded_steps(data, sampler, steps, kind, rho, low, high)
        for sampler in FROZEN
        for steps in STEPS
        for kind, rho in kinds
    ]


def bounded_steps(
    data: DataFacts, sampler: str, steps: int, kind: str, rho: float, low: float, high: float
) -> BoundedSteps:
    """Noise scales of one spacing with their E_I and E_D."""
    sigma_K = above_zero(noise_steps(kind, steps, low, high, rho))
    return BoundedSteps(
        sampler, steps, kind, rho, sigma_K,
        data.dim * initial_error(high, data.optimal, data.second_moment),
        data.dim * discretisation_error(sampler, sigma_K, data.optimal),
    )  # fmt: skip


def _parts_frame(frame: pd.DataFrame, data: DataFacts, low: float, high: float) -> pd.DataFrame:
    choices = _step_choices(data, low, high)
    rows = [
        (*key, s.sampler, s.steps, s.spacing, s.rho, *s.parts(gap, data.dim))
        for key, gap in _networks(frame)
        for s in choices
    ]
    return pd.DataFrame(rows, columns=[*NETWORK, "sampler", "steps", "spacing", "rho", *PARTS])


def best_steps(parts: pd.DataFrame) -> pd.DataFrame:
    """The spacing of the smallest bound for each network, sampler and number of steps.

    edm, exponential: the bounds of EDM's polynomial (rho = 7) and of exponential steps.
    crossover: the factor on this network's gap at which the two are equal; below it (better
    trained) exponential steps are better. Not a number where one is better at any gap.
    """
    rows = []
    for key, group in parts.groupby(["run", "snapshot", "sampler", "steps"], sort=False):
        best = group.sort_values("total").iloc[0]
        edm = group[(group["spacing"] == "polynomial") & (group["rho"] == EDM_RHO)].iloc[0]
        exponential = group[group["spacing"] == "exponential"].iloc[0]
        lost = edm["discretisation"] - exponential["discretisation"]
        won = exponential["score"] - edm["score"]
        rows.append(
            {
                **{name: best[name] for name in NETWORK},
                "sampler": key[2],
                "steps": key[3],
                "spacing": best["spacing"],
                "rho": best["rho"],
                **{name: best[name] for name in PARTS},
                "edm": edm["total"],
                "exponential": exponential["total"],
                "crossover": lost / won if lost > 0 and won > 0 else np.nan,
            }
        )
    return pd.DataFrame(rows)


def bounds_of_trials(quality: list[Path], frame: pd.DataFrame, data: DataFacts) -> pd.DataFrame:
    """Rows of the quality tables whose sampler has a bound, with that bound's parts.

    Rows whose noise scales go beyond the measured ones have none and are left out.
    """
    trials = pd.concat([read_table(p, (*TRIAL, "run", "snapshot", "fid")) for p in quality])
    place = NETWORK.index("snapshot")
    gaps = {(key[0], key[place]): gap for key, gap in _networks(frame)}
    low, high = float(frame["sigma"].min()), float(frame["sigma"].max())
    rows = []
    for _, trial in trials[trials["sampler"].isin(list(FROZEN))].iterrows():
        gap = gaps.get((trial["run"], trial["snapshot"]))
        inside = trial["sigma_min"] >= low * (1 - 1e-9) and trial["sigma_max"] <= high * (1 + 1e-9)
        if gap is None or not inside:
            continue
        plan = bounded_steps(
            data, trial["sampler"], int(trial["steps"]), trial["spacing"], trial["rho"],
            trial["sigma_min"], trial["sigma_max"],
        )  # fmt: skip
        rows.append({**trial, **dict(zip(PARTS, plan.parts(gap, data.dim), strict=True))})
    return pd.DataFrame(rows, columns=[*trials.columns, *PARTS])
