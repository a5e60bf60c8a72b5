"""The variants of a study side by side: their losses against one floor."""

from pathlib import Path

import numpy as np
import pandas as pd

from jstar.config import Study
from jstar.constants import CRITICAL_SHARE, TOTAL
from jstar.curve import OptimalLoss, read_curve
from jstar.diagnose.measure import floor_share
from jstar.diagnose.words import bulk, percent, scales, times, worse_than_mean_image
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.manifest import CARD, parents, require_of_run, require_together
from jstar.noise import process, total_weights
from jstar.records import (
    LOSSES_COLUMNS,
    VARIANTS_COLUMNS,
    facts_beside,
    provenance,
    read_table,
    write_table,
    write_text,
)
from jstar.typeset import Rows, latex, markdown


def write_variants(layout: Layout) -> str:
    """Write losses.csv, last.csv and summary.{md,tex} of a study to its folder variants/.

    last.csv: one row per (run, noise scale) at the last snapshot, with the held-out loss
    beside the training loss. Returns the paragraph in words. Raises JstarError.
    """
    study = layout.study
    if study.kind != "variants":
        raise JstarError(
            f"variants: study '{study.study}' is of kind '{study.kind}', only 'variants' has them"
        )
    losses = _losses(layout)
    curve = read_curve(layout.curve)
    frame = _last(study, losses, curve)
    summary = summary_rows(study, frame, curve)
    text = _words(study, frame, summary, curve)
    facts = provenance(
        card_id=facts_beside(layout.curve).get("card_id"),
        study=study.study,
        ema=study.ema,
        variance=curve.variance,
        critical_sigma=curve.critical_sigma,
        **parents(layout.variants / "last.json", [layout.curve, *_tables(layout)]),
        images=int(frame["images"].max()),
        words=text,
    )
    caption = (
        f"{len(summary)} variants after {int(frame['images'].max()):,} images: J* as a share of "
        "the loss that each one trains; where half of its weighted gap lies; gap / J* at the "
        "largest noise scale; where it is worse than the mean image; held-out / training loss - 1."
    )
    table = [SUMMARY, *summary]
    page = f"# Variants of study '{study.study}'\n\n{text}\n\n{markdown(table, caption)}"
    summaries = [layout.variants / f"summary.{end}" for end in ("md", "tex")]
    for path, words in zip(summaries, (page, latex(table, caption, "tab:variants")), strict=True):
        write_text(path, words)
    write_table(layout.variants / "losses.csv", losses, facts)
    write_table(layout.variants / "last.csv", frame, facts, summaries)
    return text


def _tables(layout: Layout) -> list[Path]:
    """The tables of losses of all runs."""
    return [layout.losses(*run) for run in layout.study.runs()]


def _losses(layout: Layout) -> pd.DataFrame:
    """The losses of all runs, of one EMA length; a run on other data is refused."""
    tables = _tables(layout)
    require_of_run(tables)
    require_together([layout.curve, *tables], CARD)
    frame = pd.concat([read_table(path, LOSSES_COLUMNS) for path in tables], ignore_index=True)
    return frame[np.isclose(frame["ema"], layout.study.ema)].reset_index(drop=True)


def _last(study: Study, losses: pd.DataFrame, curve: OptimalLoss) -> pd.DataFrame:
    """The last snapshot of every run beside J* and the weights that it was trained with."""
    newest = losses["images"] == losses.groupby("run")["images"].transform("max")
    last = losses[newest & (losses["sigma"] != TOTAL)].assign(
        sigma=lambda f: f["sigma"].astype(float)
    )
    train = last[last["split"] == "train"].drop(columns=["split", "ema", "flops", "snapshot"])
    held = last.loc[last["split"] == "holdout", ["run", "sigma", "loss", "loss_se"]]
    frame = train.merge(
        held.rename(columns={"loss": "holdout", "loss_se": "holdout_se"}),
        on=["run", "sigma"],
        how="left",
    )
    optimal, optimal_se = curve.at(frame["sigma"])
    frame["optimal"], frame["optimal_se"] = optimal, optimal_se
    parts = []
    for (model, _), rows in frame.groupby(["model", "seed"], sort=False):
        facts = study.train_of(str(model)).process_facts()
        weight_S = total_weights(process(**facts), rows["sigma"].to_numpy())
        parts.append(rows.assign(process=facts["name"], weight=weight_S))
    return pd.concat(parts, ignore_index=True)[list(VARIANTS_COLUMNS)]


# --- a row each, and in words -----------------------------------------------------------------

SUMMARY = ["variant", "floor", "half of the gap at σ", "gap / J* at the top", "worse than mean",
           "held-out − train"]  # fmt: skip


def summary_rows(study: Study, frame: pd.DataFrame, curve: OptimalLoss) -> Rows:
    rows = []
    for entry in study.ladder:
        mean = _mean(frame[frame["model"] == entry.name])
        top = mean.iloc[-1]
        # losses.csv holds no error paired with the mean image's; that of the gap is close to it.
        excess = mean["optimal"] + mean["gap"] - curve.variance
        harm = worse_than_mean_image(mean, excess, "gap_se")
        rows.append(
            [
                entry.name,
                percent(floor_share(mean)),
                bulk(mean)[1],
                times(float(top["gap"] / top["optimal"])),
                scales(harm) if len(harm) else "nowhere",
                _memorised(mean),
            ]
        )
    return rows


def _mean(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over the seeds of a variant, by noise scale."""
    keys = ["loss", "gap", "gap_se", "optimal", "weight", "holdout", "loss_se", "holdout_se"]
    return rows.groupby("sigma")[keys].mean().reset_index()


def _memorised(mean: pd.DataFrame) -> str:
    """Mean over the noise scales of held-out over training loss - 1, with its error."""
    if mean["holdout"].isna().any():
        return "not measured"
    ratio = mean["holdout"] / mean["loss"] - 1
    # The noise scales share their images: their errors do not average out.
    error = np.hypot(mean["holdout_se"] / mean["holdout"], mean["loss_se"] / mean["loss"]).mean()
    return f"{100 * ratio.mean():+.1f} ± {100 * error:.1f} %".replace("-", "−")


def _words(study: Study, frame: pd.DataFrame, summary: Rows, curve: OptimalLoss) -> str:
    """Who is nearest to and furthest from J*, at small, middle and large noise scales."""
    means = {str(m): _mean(rows) for m, rows in frame.groupby("model", sort=False)}
    sigma = curve.sigma
    middle = float(sigma[int(np.abs(np.log(sigma / _middle(curve))).argmin())])
    sentences = [
        _ranking(means, float(sigma[0]), curve),
        _ranking(means, middle, curve),
        _ranking(means, float(sigma[-1]), curve),
        _noise_prediction(study, means),
    ]
    harmful = [f"{row[0]} (σ = {row[4]})" for row in summary if row[4] != "nowhere"]
    if harmful:
        sentences.append(f"Worse than the dataset's mean image: {', '.join(harmful)}.")
    return " ".join(s for s in sentences if s)


def _noise_prediction(study: Study, means: dict[str, pd.DataFrame]) -> str:
    """Why networks that predict the noise are weak at large noise scales, in numbers."""
    told = []
    for name, mean in means.items():
        if study.train_of(name).make_process().prediction in ("epsilon", "score"):
            top = mean.iloc[-1]
            told.append(f"{top['gap'] / top['sigma'] ** 2:.2g} ({name})")
            sigma, ratio = top["sigma"], top["sigma"] ** 2
    if not told:
        return ""
    return (
        "A network that predicts the noise has x0 = x − σ·noise, so its squared error counts σ² "
        f"times: at σ = {sigma:.3g}, {ratio:,.0f} times, the gap is an error of only "
        f"{' and '.join(told)} in noise of variance 1."
    )


def _middle(curve: OptimalLoss) -> float:
    """Where J* is half of the variance: the noise scale at which most is decided."""
    return float(np.interp(0.5 * curve.variance, curve.loss, curve.sigma))


def _ranking(means: dict[str, pd.DataFrame], sigma: float, curve: OptimalLoss) -> str:
    """One sentence of the gaps at one noise scale, smallest first."""
    gaps = {name: float(np.interp(sigma, m["sigma"], m["gap"])) for name, m in means.items()}
    order = sorted(gaps, key=lambda name: gaps[name])
    best, worst = order[0], order[-1]
    floor = float(curve.at(sigma)[0][0])
    if floor > CRITICAL_SHARE * curve.variance:
        told = ", ".join(f"{name} {times(gaps[name] / floor)}" for name in order)
        return f"Gap relative to J* at σ = {sigma:.3g}: {told}."
    return (
        f"At σ = {sigma:.3g}, where J* is next to nothing, {best} has the smallest gap "
        f"({gaps[best]:.2g}) and {worst} the largest ({gaps[worst] / gaps[best]:.2g} times it)."
    )
