"""The result tables of a study, read once for a figure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.errors import JstarError
from jstar.records import CURVE_COLUMNS, LOSSES_COLUMNS, read_json, read_table


@dataclass(frozen=True)
class StudyTables:
    """Tables of the stages optimal and fit; `losses` holds only the split and EMA fitted."""

    curve: pd.DataFrame
    losses: pd.DataFrame
    fits: pd.DataFrame
    verdicts: pd.DataFrame
    frontier: pd.DataFrame
    predictions: pd.DataFrame
    residuals: pd.DataFrame
    facts: dict[str, Any]

    @property
    def models(self) -> list[str]:
        """Names of the sizes, smallest first."""
        sizes = self.losses.drop_duplicates("model").sort_values("params")
        return [str(name) for name in sizes["model"]]

    @property
    def params(self) -> dict[str, int]:
        """Number of parameters of each size."""
        sizes = self.losses.drop_duplicates("model")
        return {str(m): int(p) for m, p in zip(sizes["model"], sizes["params"], strict=True)}

    @property
    def sigmas(self) -> NDArray[np.float64]:
        """The noise scales, increasing, [S]."""
        values = [float(s) for s in self.losses["sigma"].unique() if s != "total"]
        return np.sort(np.array(values))

    def at(self, table: str, sigma: float | str) -> pd.DataFrame:
        """Rows of a table at one noise scale, or of the total."""
        frame: pd.DataFrame = getattr(self, table)
        if sigma == "total":
            return frame[frame["sigma"] == "total"]
        number = pd.to_numeric(frame["sigma"], errors="coerce")
        return frame[np.isclose(number, float(sigma), rtol=1e-6)]

    def last(self) -> pd.DataFrame:
        """Rows of the last snapshot of every run."""
        newest = self.losses.groupby("run")["images"].transform("max")
        return self.losses[self.losses["images"] == newest]

    def optimal(self, sigma: float) -> float:
        """J* at a noise scale of the grid."""
        return float(self.at("curve", sigma)["loss"].iloc[0])


def load_tables(fits: Path, curve: Path, ema: float | None) -> StudyTables:
    """Read the tables that the stages optimal and fit wrote."""
    losses = read_table(fits / "losses.csv", LOSSES_COLUMNS)
    losses = losses[losses["split"] == "train"]
    if ema is not None:
        losses = losses[np.isclose(losses["ema"], ema)]
    if losses.empty:
        raise JstarError(f"{fits / 'losses.csv'}: holds no losses of the training split to draw")
    return StudyTables(
        curve=read_table(curve, CURVE_COLUMNS),
        losses=losses,
        fits=read_table(fits / "fits.csv"),
        verdicts=read_table(fits / "verdicts.csv"),
        frontier=read_table(fits / "frontier.csv"),
        predictions=read_table(fits / "predictions.csv"),
        residuals=read_table(fits / "residuals.csv"),
        facts=read_json(curve.with_suffix(".json")),
    )
