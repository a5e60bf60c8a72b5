"""The result tables of a study, read once for a figure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jstar.constants import TOTAL
from jstar.curve import OptimalLoss, read_curve
from jstar.errors import JstarError
from jstar.layout import FIT_TABLES
from jstar.manifest import CARD, require_together
from jstar.records import (
    CURVE_COLUMNS,
    LOSSES_COLUMNS,
    VARIANTS_COLUMNS,
    read_json,
    read_table,
    require_intact,
)
from jstar.scaling.inputs import REQUIRED, select
from jstar.scaling.tables import ENDS, INTERVALS

# How often this design gives which verdict, by what is true; and coverage of alpha's interval.
RATES = ("rate_corrected_if_raw", "rate_raw_if_corrected", "rate_above_if_corrected",
         "rate_raw_if_raw", "rate_corrected_if_corrected", "alpha_coverage")  # fmt: skip

# The columns that figures and notebooks read.
COLUMNS: dict[str, tuple[str, ...]] = {
    "losses": (*REQUIRED, "sigma", "model"),
    "fits": ("sigma", "law", "alpha", "alpha_low", "alpha_high", "alpha_covariance_low",
             "alpha_covariance_high", "alpha_profile_low", "alpha_profile_high", "beta", "offset",
             "r2", "r2_response", "aicc", "n", "status"),
    "verdicts": ("sigma", "verdict", "reason", "crossings", "frontier", "optimal", *RATES, "floor",
                 "floor_low", "floor_high", "floor_optimal", "floor_says", "heldout_says"),
    "frontier": ("sigma", "run", "model", "params", "flops", "loss", "gap", "fitted",
                 "on_frontier"),
    "onsets": ("params", "onset", "bend_in_se", "fitted_from", "left_out"),
    "expected": ("world", "verdict", "found", "low", "median", "high", "of"),
    "predictions": ("sigma", "law", "flops", "loss", "loss_low", "loss_high", "gap", "gap_low",
                    "gap_high"),
    "residuals": ("sigma", "law", "run", "model", "flops", "residual"),
    "residual_tests": ("sigma", "law", "runs_p", "durbin_watson", "curvature_p", "broken_p"),
    "profile": ("sigma", "law", "alpha", "rise"),
    "sensitivity": ("sigma", "choice", "alpha", "shift_in_se", "alpha_low", "alpha_high"),
    "isoflop": ("sigma", "flops", "params", "value", "by_budget", "of"),
    "isoflop_minima": ("sigma", "flops", "params", "images", "value", "status",
                       "params_low", "params_high"),
    "parametric": ("sigma", "of", "floor", "E", "A", "a", "B", "b", "N0", "D0", "alpha",
                   "size_exponent", "misfit", "aicc", "n", "status",
                   *(f"{name}_{end}" for name in INTERVALS for end in ENDS)),
    "approaches": ("sigma", "approach", "alpha", "alpha_low", "alpha_high", "size_exponent",
                   "size_low", "size_high", "status", "floor"),
    "held_out": ("sigma", "share", "flops", "floor", "alpha", "ratio", "low", "high", "says"),
    "averages": ("sigma", "model", "ema", "of", "value", "gain_percent", "best"),
    "cooldown": ("sigma", "model", "images", "flops", "seeds", "ema", "best_ema", "of",
                 "change_percent", "change_se", "change_best_percent"),
    "cooldown_laws": ("sigma", "of", "alpha", "alpha_low", "alpha_high", "n", "status"),
}  # fmt: skip


@dataclass(frozen=True)
class StudyTables:
    """Tables of the stages optimal and fit; `losses` holds only the split and EMA fitted.

    floor, curve: J* and its table, empty without one; facts: what is said of it; confidence: of
    all intervals. origin: what the fits say of their tables.
    """

    floor: OptimalLoss | None
    curve: pd.DataFrame
    losses: pd.DataFrame
    fits: pd.DataFrame
    verdicts: pd.DataFrame
    frontier: pd.DataFrame
    onsets: pd.DataFrame
    expected: pd.DataFrame
    predictions: pd.DataFrame
    residuals: pd.DataFrame
    residual_tests: pd.DataFrame
    profile: pd.DataFrame
    sensitivity: pd.DataFrame
    isoflop: pd.DataFrame
    isoflop_minima: pd.DataFrame
    parametric: pd.DataFrame
    approaches: pd.DataFrame
    held_out: pd.DataFrame
    averages: pd.DataFrame
    cooldown: pd.DataFrame
    cooldown_laws: pd.DataFrame
    facts: dict[str, Any]
    confidence: float
    origin: dict[str, Any]
    record: ClassVar[str] = "fits.json"

    @property
    def loss_word(self) -> str:
        """What the loss is called, where that is stated."""
        return str(self.origin.get("loss_unit") or "loss").partition(",")[0]

    @property
    def data_word(self) -> str:
        """What the data are called that a model has seen."""
        return str(self.origin.get("data") or "F / N")

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

    @property
    def scales(self) -> list[float | str]:
        """The noise scales, increasing, and the total where it was fitted."""
        total: list[float | str] = ["total"] if (self.fits["sigma"] == "total").any() else []
        return [*(float(s) for s in self.sigmas), *total]

    def at(self, table: str, sigma: float | str) -> pd.DataFrame:
        """Rows of a table at one noise scale, or of the total."""
        frame: pd.DataFrame = getattr(self, table)
        if sigma == "total":
            return frame[frame["sigma"] == "total"]
        number = pd.to_numeric(frame["sigma"], errors="coerce")
        return frame[np.isclose(number, float(sigma), rtol=1e-6)]

    def fit(self, sigma: float | str, law: str) -> "pd.Series[Any]":
        """The fit of one law."""
        rows = self.at("fits", sigma)
        return rows[rows["law"] == law].iloc[0]

    def last(self) -> pd.DataFrame:
        """Rows of the last snapshot of every run."""
        newest = self.losses.groupby("run")["flops"].transform("max")
        return self.losses[self.losses["flops"] == newest]

    def optimal(self, sigma: float) -> float:
        """J* at a noise scale; nan without a curve."""
        return float("nan") if self.floor is None else float(self.floor.at(sigma)[0][0])


def load_tables(fits: Path, curve: Path | None, ema: float | None) -> StudyTables:
    """Read the tables that the stages optimal (if it ran: `curve`) and fit wrote.

    Raises JstarError: one sentence with the file and what is missing in it, or that a table is of
    another fit than the rest, or the fit of another table of J*.
    """
    for name in FIT_TABLES:
        require_intact(fits / f"{name}.csv", fits / StudyTables.record, "fit again")
    frames = {name: _read(fits / f"{name}.csv", COLUMNS[name]) for name in FIT_TABLES}
    optimal = read_curve(curve) if curve is not None else None
    origin = read_json(fits / StudyTables.record)
    _require_fitted(fits, origin, curve, optimal)
    losses = select(frames["losses"].assign(source=str(fits / "losses.csv")), ema=ema)
    return StudyTables(
        **{**frames, "losses": _with_gap(losses, optimal)},
        floor=optimal,
        curve=optimal.to_frame() if optimal else pd.DataFrame(columns=list(CURVE_COLUMNS)),
        facts=optimal.origin if optimal else {},
        confidence=float(origin["confidence"]),
        origin=origin,
    )


def _require_fitted(
    fits: Path, origin: dict[str, Any], curve: Path | None, optimal: OptimalLoss | None
) -> None:
    """Refuse a table of J* that is not the one that was fitted with."""
    known = origin.get("optimal_fingerprint")
    if optimal is not None and known is not None and optimal.fingerprint != known:
        raise JstarError(
            f"{curve}: is the J* {optimal.fingerprint} of the distribution "
            f"{optimal.origin.get('card_id', '?')}, the fits in {fits} were made with the J* "
            f"{known} of {origin.get('card_id') or '?'}; fit again, or give the other table"
        )


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table of the fit stage. Names of models stay names, also where they look like numbers."""
    frame = read_table(path, columns)
    return frame.assign(model=frame["model"].astype(str)) if "model" in frame else frame


def _with_gap(losses: pd.DataFrame, curve: OptimalLoss | None) -> pd.DataFrame:
    """Losses with the columns gap and gap_se: loss - J* and its error where none was measured."""
    if "gap" in losses and losses["gap"].notna().all():
        return losses.assign(gap_se=losses.get("gap_se", 0.0))
    if curve is None:
        return losses.assign(gap=np.nan, gap_se=np.nan)
    single = losses["sigma"].astype(str) != TOTAL
    gap = losses["loss"].where(single)
    gap[single] -= curve.at(losses.loc[single, "sigma"].astype(float))[0]
    return losses.assign(gap=gap, gap_se=losses.get("loss_se", 0.0))


@dataclass(frozen=True)
class VariantTables:
    """Tables of a study of variants. `last`: the last snapshots; `losses`: all of them.

    facts: what is said of them (variance, critical_sigma, images, words).
    """

    curve: pd.DataFrame
    last: pd.DataFrame
    losses: pd.DataFrame
    facts: dict[str, Any]
    record: ClassVar[str] = "last.json"

    @property
    def models(self) -> list[str]:
        """Names of the variants, in the ladder's order."""
        return [str(model) for model in self.last["model"].unique()]

    @property
    def span(self) -> tuple[float, float]:
        """Images seen at the first and the last snapshot."""
        return float(self.losses["images"].min()), float(self.losses["images"].max())

    def mean(self, model: str) -> pd.DataFrame:
        """The last snapshot of a variant, mean over its seeds, one row a noise scale."""
        rows = self.last[self.last["model"] == model]
        return rows.groupby("sigma").mean(numeric_only=True).reset_index()

    def over_time(self, model: str, split: str, sigma: float) -> pd.DataFrame:
        """Loss and gap of a variant at one noise scale, by images seen, mean over its seeds."""
        rows = self.losses[(self.losses["model"] == model) & (self.losses["split"] == split)]
        number = pd.to_numeric(rows["sigma"], errors="coerce")
        rows = rows[np.isclose(number, sigma, rtol=1e-6)].drop(columns="sigma")
        return rows.groupby("images").mean(numeric_only=True).reset_index()


def load_variants(folder: Path, curve: Path) -> VariantTables:
    """Read the tables that `jstar variants losses` wrote. Raises JstarError."""
    require_together([folder / VariantTables.record, folder / "losses.csv", curve], CARD)
    return VariantTables(
        curve=read_curve(curve).to_frame(),
        last=read_table(folder / "last.csv", VARIANTS_COLUMNS),
        losses=read_table(folder / "losses.csv", LOSSES_COLUMNS),
        facts=read_json(folder / VariantTables.record),
    )
