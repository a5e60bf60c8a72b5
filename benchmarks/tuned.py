"""What tuning every size changes: `python benchmarks/tuned.py [TUNED UNTUNED]`, folders of tables.

Draws TUNED/figures/tuned.{png,pdf} and writes tuned.csv: the change of the gap at the last snapshot
of every size (seeds averaged), over the noise scale, and the exponent of the joint law with the
floor J* of both studies, which share sizes, images and noise scales.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from jstar.constants import TOTAL
from jstar.figures.style import (
    PAGE,
    legend,
    letter,
    new_figure,
    panel_title,
    save,
    sigma_axis,
    size_colors,
    size_handles,
)
from jstar.records import provenance, write_table
from jstar.scaling.inputs import select

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
STYLE = {
    "untuned": {"color": "#777777", "marker": "s"},
    "tuned": {"color": "#0072B2", "marker": "o"},
}


def last_gaps(folder: Path) -> pd.DataFrame:
    """Mean gap over seeds at the end of every size's runs."""
    rows = select(pd.read_csv(folder / "losses.csv", dtype={"sigma": str}))
    rows = rows[rows["images"] == rows.groupby("model")["images"].transform("max")]
    return rows.groupby(["sigma", "model", "params"], as_index=False, sort=False)["gap"].mean()


def exponents(folder: Path) -> pd.DataFrame:
    """The joint law with the floor J* at every noise scale where it has converged."""
    laws = pd.read_csv(folder / "parametric.csv", dtype={"sigma": str})
    laws = laws[(laws["floor"] == "optimal") & (laws["of"] == "fitted")]
    return laws[laws["status"] == "converged"]


def main() -> None:
    tuned, untuned = (
        [Path(p) for p in sys.argv[1:3]]
        if len(sys.argv) > 2
        else [REFERENCE / "digits-tuned", REFERENCE / "digits"]
    )
    both = last_gaps(tuned).merge(last_gaps(untuned), on=["sigma", "model", "params"],
                                  suffixes=("_tuned", "_untuned"))  # fmt: skip
    both["change_percent"] = 100 * (both["gap_tuned"] / both["gap_untuned"] - 1)
    figure, axes = new_figure(1, 2, PAGE, 2.6)
    change, exponent = axes[0]
    params = dict(zip(both["model"], both["params"], strict=True))
    models = sorted(params, key=lambda m: params[m])
    single = both[both["sigma"] != TOTAL]
    for model, color in size_colors(models).items():
        mine = single[single["model"] == model]
        change.plot(mine["sigma"].astype(float), mine["change_percent"], "o-", color=color, ms=2.4)
    change.axhline(0, color="#888888", lw=0.6, zorder=0)
    change.set_ylabel("gap: tuned against untuned (%)")
    panel_title(change, "at the last snapshot")
    for (name, style), folder in zip(STYLE.items(), (untuned, tuned), strict=True):
        laws = exponents(folder)
        laws = laws[laws["sigma"] != TOTAL]
        ends = [laws["alpha"] - laws["alpha_low"], laws["alpha_high"] - laws["alpha"]]
        shift = 1.04 if name == "tuned" else 1 / 1.04
        sigma = laws["sigma"].astype(float) * shift
        exponent.errorbar(sigma, laws["alpha"], np.clip(ends, 0, None),
                          ls="", lw=0.9, ms=3, **style)  # fmt: skip
    exponent.axhline(0, color="#888888", lw=0.6, zorder=0)
    panel_title(exponent, r"exponent $\alpha$ of the joint law, floor $J^*$")
    for panel in (change, exponent):
        sigma_axis(panel)
    handles = [Line2D([], [], ls="", ms=3, label=name, **style) for name, style in STYLE.items()]
    legend(figure, [*size_handles(models, params, marker="o", ms=2.4, lw=0.9), *handles])
    letter(axes[0])
    (tuned / "figures").mkdir(exist_ok=True)
    save([figure], tuned / "figures" / "tuned")
    facts = provenance(command=" ".join(["python benchmarks/tuned.py", *sys.argv[1:]]))
    write_table(tuned / "tuned.csv", both, facts)
    total = both[both["sigma"] == TOTAL]
    print(total.drop(columns="sigma").to_string(index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
