"""Does the learning-rate rule transfer over width? python benchmarks/train_width.py --out FOLDER

Trains the digits at several widths and rates (depth 3, same images and noise in every run) and
takes the training loss of the last quarter. `rate` is train.learning_rate, before the rule's
factor sqrt(learning_rate_width / width). The rule holds where every width has its best rate at
the same `rate`: then `slope`, that of ln(best rate x factor) in ln(width), is -1/2, and
`regret`, the loss above a width's own best at the best rate of all, is small.
Writes train_width.csv (every run), train_width_best.csv (every width) and train_width.png.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from jstar.config import Study
from jstar.data import prepare
from jstar.figures.style import PAGE, legend, letter, log_ticks, new_figure, size_colors
from jstar.records import provenance, write_atomically, write_table
from jstar.train import train
from jstar.train.optimizer import learning_rate

ROOT = Path(__file__).resolve().parents[1]
DEPTH = 3


def sweep(widths: list[int], rates: list[float], images: int, threads: int) -> pd.DataFrame:
    """One row a run."""
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width in widths:
            for rate in rates:
                tree["ladder"] = [{"name": "x", "depth": DEPTH, "width": width}]
                tree["train"] |= {"images": images, "learning_rate": rate}
                study = Study.parse(tree)
                if not (folder / "data").exists():
                    prepare(study.dataset, folder / "data")
                run = folder / f"{width}-{rate}"
                train(study, "x", 0, folder / "data", run / "out", run / "state",
                      device="cpu", threads=threads)  # fmt: skip
                table = pd.read_csv(run / "out" / "telemetry.csv")
                late = table[table["images"] > 0.75 * images]
                loss = (late["weighted"] * late["count"]).sum() / late["count"].sum()
                used = learning_rate(study.train, width, images)
                rows.append({"width": width, "rate": rate, "rate_used": used, "loss": loss})
    return pd.DataFrame(rows)


def best_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Of every width, the vertex of the parabola through the best rate and its two neighbours."""
    common = table.groupby("rate")["loss"].mean().idxmin()
    rows = []
    for width, runs in table.groupby("width"):
        runs = runs.sort_values("rate").reset_index(drop=True)
        k = int(runs["loss"].idxmin())
        near = runs.iloc[max(0, k - 1) : k + 2]
        inside = 0 < k < len(runs) - 1
        a, b, _ = np.polyfit(np.log(near["rate"]), near["loss"], 2) if inside else (1, 0, 0)
        rate = float(np.exp(-b / (2 * a))) if inside else float(runs["rate"][k])
        regret = runs.set_index("rate")["loss"][common] / runs["loss"].min() - 1
        factor = runs["rate_used"][0] / runs["rate"][0]
        rows.append({"width": width, "rate": rate, "rate_used": rate * factor,
                     "inside": inside, "loss": runs["loss"].min(), "common_rate": common,
                     "regret": regret})  # fmt: skip
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, best: pd.DataFrame, path: Path) -> None:
    """Loss over the rate, a line a width, before and after the rule."""
    drawing, axes = new_figure(1, 2, PAGE, 2.5, sharey=True)
    panels = axes[0]
    colors = size_colors([str(width) for width in best["width"]]).values()
    for panel, column in zip(panels, ("rate_used", "rate"), strict=True):
        for color, (width, runs) in zip(colors, table.groupby("width"), strict=True):
            runs = runs.sort_values("rate")
            panel.plot(runs[column], runs["loss"] / runs["loss"].min(), "o-", ms=3, color=color,
                       label=f"width {width}")  # fmt: skip
            panel.axvline(best.set_index("width").loc[width, column], color=color, lw=0.7, ls=":")
        log_ticks(panel, table[column].min() / 1.2, table[column].max() * 1.2, along="x")
    panels[0].set(xlabel="learning rate used", ylabel="training loss / its best")
    panels[1].set(xlabel=r"train.learning_rate: used $\times\sqrt{\mathrm{width} / 32}$")
    letter(panels)
    legend(drawing, panels[0].get_legend_handles_labels()[0])
    write_atomically(path, lambda p: drawing.savefig(p, dpi=300))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--rates", type=float, nargs="+", default=[7.5e-4 * 2**k for k in range(7)])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    args = parser.parse_args()
    table = sweep(args.widths, args.rates, args.images, args.threads)
    best = best_rates(table)
    slope = float(np.polyfit(np.log(best["width"]), np.log(best["rate_used"]), 1)[0])
    print(table.pivot_table(index="width", columns="rate", values="loss").round(4))
    print(best.round(5).to_string(index=False))
    print(f"slope {slope:.2f} (the rule: -0.5)")
    command = " ".join(["python benchmarks/train_width.py", *sys.argv[1:]])
    facts = provenance(command=command, depth=DEPTH, slope=slope)
    write_table(args.out / "train_width.csv", table, facts)
    write_table(args.out / "train_width_best.csv", best, facts)
    figure(table, best, args.out / "train_width.png")


if __name__ == "__main__":
    main()
