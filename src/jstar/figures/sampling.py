"""Tables and figures of a study's samples and of the sampling theory, brought together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jstar.errors import JstarError
from jstar.figures import gap_quality, samples, theory
from jstar.figures.style import save
from jstar.layout import Layout
from jstar.records import (
    LOSSES_COLUMNS,
    provenance,
    read_table,
    require_intact,
    write_record,
)
from jstar.sampling.quality.correlation import write_quality_tables


def draw_quality(layout: Layout) -> None:
    """Write quality.csv, correlation.csv and two figures to the study's sampling/."""
    mpl.use("Agg")
    runs, out = layout.study.runs(), layout.sampling
    losses = [layout.losses(*run) for run in runs]
    correlation = write_quality_tables([layout.quality(*run) for run in runs], losses, out)
    together = read_table(out / "quality.csv")
    own = together.drop_duplicates(["run", "snapshot"])
    measured = pd.concat([read_table(path, LOSSES_COLUMNS) for path in losses])
    measured = measured[measured["split"] == "train"]
    strips = save([samples.draw_samples(_strips(layout, own))], out / "samples")
    drawn = gap_quality.draw_gap_quality(own, measured, correlation)
    _keep(out / "gap_quality", *drawn, strips)


def draw_theory(folder: Path) -> None:
    """Write the figure `theory` beside the tables that `jstar.sampling.theory.stage` wrote."""
    mpl.use("Agg")
    trials = folder / "theory_quality.csv"
    drawn = theory.draw_sampling_theory(
        read_table(folder / "bounds.csv"),
        read_table(folder / "steps.csv"),
        read_table(trials) if trials.is_file() else None,
    )
    _keep(folder / "theory", *drawn)


def _strips(layout: Layout, quality: pd.DataFrame) -> list[samples.Drawn]:
    """The data; each model at its last snapshot; the earlier snapshots of the largest."""
    firsts = quality.sort_values(["params", "seed", "flops"])
    last = firsts.groupby("model", sort=False).tail(1)
    largest = firsts[firsts["run"] == last["run"].iloc[-1]]
    rows = [samples.Drawn("data", _archive(layout, last.iloc[0], "real"))]
    for _, row in pd.concat([last, largest.iloc[:-1][::-1]]).iterrows():
        label = samples.row_label(str(row["model"]), int(row["params"]), int(row["images"]))
        rows.append(samples.Drawn(label, _archive(layout, row, "images"), float(row["fid"])))
    return rows


def _archive(layout: Layout, row: "pd.Series[Any]", name: str) -> Any:
    """Images of one snapshot, or of the data, from a run's samples.npz."""
    path = layout.quality(str(row["model"]), int(row["seed"])).with_name("samples.npz")
    require_intact(path, path.with_name("quality.json"), "sample the run again")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if name == "real":
                return stored["real"]
            return stored["images"][list(stored["snapshot"]).index(row["snapshot"])]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise JstarError(f"{path}: holds no such images ({error}), sample the run again") from error


def _keep(stem: Path, figure: Figure, numbers: dict[str, Any], others: Sequence[Path] = ()) -> None:
    files = [*save([figure], stem), *others]
    write_record(stem.with_suffix(".json"), provenance(figure=stem.name, numbers=numbers), files)
