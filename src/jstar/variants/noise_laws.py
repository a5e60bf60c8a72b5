"""What the optimal-loss noise law changes: each such run against its like with the own law.

Runs of one seed see the same images and noise at either law, so the differences are paired by seed;
their interval is Student's t over seeds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from jstar.config import Study
from jstar.constants import CONFIDENCE, TOTAL
from jstar.curve import OptimalLoss, read_curve
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.manifest import CARD, parents, require_of_run, require_together
from jstar.noise import process, total_weights
from jstar.records import facts_beside, provenance, read_table, write_table, write_text
from jstar.typeset import markdown

LAW_COLUMNS = ("process", "model", "seed", "images", "sigma", "weight", "gap", "density", "draws",
               "own_density", "own_weight")  # fmt: skip
NAMES = {"fid": "FID of samples", "precision": "precision", "recall": "recall"}
TIMES = 8  # at which law.csv has the law of a run, log-spaced; its own table has all

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two ladder entries that differ only in the noise law, and the seeds both have."""

    process: str
    own: str
    optimal: str
    seeds: tuple[int, ...]


def _pairs(study: Study) -> list[Pair]:
    """The pairs of a study. Raises JstarError if it has none."""
    pairs = [
        Pair(study.train_of(own.name).process, own.name, new.name,
             tuple(sorted(set(own.seeds) & set(new.seeds))))
        for own, new in study.noise_pairs()
    ]  # fmt: skip
    if not pairs:
        raise JstarError(
            f"study '{study.study}': has no two ladder entries that share a seed and differ only "
            "in variant.noise"
        )
    return pairs


def write_noise(layout: Layout) -> None:
    """Write law.csv, gaps.csv, effect.csv and effect.md of a study to its folder noise-laws/.

    Raises JstarError if no two of its entries differ only in the noise law.
    """
    curve, pairs = read_curve(layout.curve), _pairs(layout.study)
    tables = [layout.losses(name, seed) for pair in pairs for seed in pair.seeds
              for name in (pair.own, pair.optimal)]  # fmt: skip
    require_of_run(tables)
    require_together([layout.curve, *tables, *(t.with_name("run.json") for t in tables)], CARD)
    facts = provenance(
        study=layout.study.study,
        card_id=facts_beside(layout.curve).get("card_id"),
        confidence=CONFIDENCE,
        **parents(layout.noise_laws / "effect.json", [layout.curve, *tables]),
    )
    gaps = pd.concat([_gaps(layout, pair, curve) for pair in pairs], ignore_index=True)
    law = pd.concat([_law(layout, pair) for pair in pairs], ignore_index=True)
    effect = pd.concat([_effect(layout, pair, curve) for pair in pairs], ignore_index=True)
    write_table(layout.noise_laws / "law.csv", law, facts)
    write_table(layout.noise_laws / "gaps.csv", gaps, facts)
    write_text(layout.noise_laws / "effect.md", _page(effect))
    write_table(layout.noise_laws / "effect.csv", effect, facts, [layout.noise_laws / "effect.md"])


def _final(path: Path, ema: float) -> pd.DataFrame:
    """The last snapshot of a run on its training draws: sigma, loss, gap."""
    frame = read_table(path, ("sigma", "gap", "split", "snapshot", "ema"))
    known = (frame["split"] == "train") & (frame["sigma"] != TOTAL) & (frame["ema"] == ema)
    last: pd.DataFrame = frame[known & (frame["snapshot"] == frame["snapshot"].max())]
    return last.assign(sigma=last["sigma"].astype(float)).sort_values("sigma")


def _gaps(layout: Layout, pair: Pair, curve: OptimalLoss) -> pd.DataFrame:
    """ln(gap with the optimal-loss law / gap with the own law) at each noise scale, over seeds."""
    own, new = (_gap_matrix(layout, name, pair.seeds) for name in (pair.own, pair.optimal))
    rows = [
        (pair.process, sigma, *_paired(own[:, s], new[:, s])) for s, sigma in enumerate(curve.sigma)
    ]
    return pd.DataFrame(rows, columns=["process", "sigma", *EFFECT])


def _gap_matrix(layout: Layout, model: str, seeds: tuple[int, ...]) -> Floats:
    """Gaps [seeds, sigma]."""
    ema = layout.study.ema
    return np.array([_final(layout.losses(model, seed), ema)["gap"] for seed in seeds], dtype=float)


EFFECT = ("seeds", "own", "optimal_loss", "change", "change_low", "change_high")


def _paired(own_K: Floats, new_K: Floats) -> tuple[Any, ...]:
    """Means, and the change as a factor less 1, with its interval over seeds."""
    ratio_K = np.log(new_K / own_K)
    count = len(ratio_K)
    half = np.nan
    if count > 1:
        half = student.ppf(0.5 + CONFIDENCE / 2, count - 1) * ratio_K.std(ddof=1) / np.sqrt(count)
    low, high = np.expm1(ratio_K.mean() - half), np.expm1(ratio_K.mean() + half)
    return count, own_K.mean(), new_K.mean(), np.expm1(ratio_K.mean()), low, high


def _effect(layout: Layout, pair: Pair, curve: OptimalLoss) -> pd.DataFrame:
    """Change of the total gap under three weightings and, where samples were made, of quality."""
    own, new = (_gap_matrix(layout, name, pair.seeds) for name in (pair.own, pair.optimal))
    sigma_data = layout.study.train.sigma_data
    known = curve.sigma > curve.critical_sigma
    weights = {
        "gap, EDM's weight and law": total_weights(process("edm", sigma_data=sigma_data),
                                                   curve.sigma),
        "gap, FM's weight and law": total_weights(process("fm"), curve.sigma),
        "gap / J*, mean over sigma > sigma*": np.where(
            known, 1 / np.maximum(curve.loss, 1e-300), 0.0) / known.sum(),
    }  # fmt: skip
    rows = [
        (pair.process, name, *_paired(own @ weight, new @ weight))
        for name, weight in weights.items()
    ]
    for column in ("fid", "precision", "recall"):
        found = [_quality(layout, name, pair.seeds, column) for name in (pair.own, pair.optimal)]
        if all(len(values) for values in found):
            rows.append((pair.process, NAMES[column], *_paired(*found)))
    return pd.DataFrame(rows, columns=["process", "quantity", *EFFECT])


def _quality(layout: Layout, model: str, seeds: tuple[int, ...], column: str) -> Floats:
    """A column of quality.csv at the last snapshot, for each seed; empty if one was not sampled."""
    paths = [layout.quality(model, seed) for seed in seeds]
    if not all(path.is_file() for path in paths):
        return np.array([])
    frames = [read_table(path, ("snapshot", column)) for path in paths]
    return np.array([f.loc[f["snapshot"] == f["snapshot"].max(), column].iloc[0] for f in frames])


def _law(layout: Layout, pair: Pair) -> pd.DataFrame:
    """Law and weight over training, beside the process' own (weights in units of EDM's)."""
    chosen = layout.study.train_of(pair.own)
    base, unit = chosen.make_process(), process("edm", sigma_data=chosen.sigma_data)
    frames = []
    for seed in pair.seeds:
        path = layout.noise_law(pair.optimal, seed)
        frame = read_table(path, LAW_COLUMNS[3:9])
        times = np.sort(frame["images"].unique())
        wanted = np.geomspace(times[0], times[-1], TIMES)
        nearest = np.abs(np.log(times[:, None] / wanted)).argmin(0)
        frame = frame[frame["images"].isin(times[nearest])]
        sigma = frame["sigma"].to_numpy()
        frames.append(frame.assign(
            process=pair.process, model=pair.optimal, seed=seed,
            own_density=base.law.density(sigma), own_weight=base.weight(sigma) / unit.weight(sigma),
        ))  # fmt: skip
    return pd.concat(frames, ignore_index=True)[list(LAW_COLUMNS)]


def _page(effect: pd.DataFrame) -> str:
    """The effect as a table to read."""
    rows = [["process", "quantity", "seeds", "own law", "optimal-loss law", "change (95 %)"]]
    for row in effect.to_dict("records"):
        change, low, high = (100 * row[key] for key in ("change", "change_low", "change_high"))
        interval = f" ({low:+.1f} to {high:+.1f})" if np.isfinite(low) else ""  # of one seed: none
        rows.append([
            str(row["process"]), str(row["quantity"]), str(row["seeds"]), f"{row['own']:.4g}",
            f"{row['optimal_loss']:.4g}", f"{change:+.1f} %{interval}",
        ])  # fmt: skip
    caption = "Last snapshot, training draws. Change: geometric mean over seeds, paired by seed."
    return "# Optimal-loss noise law against the process' own\n\n" + markdown(rows, caption)
