"""Does the learning-rate rule transfer over width? python benchmarks/train_width.py [--images N]

Trains the digits at several widths and rates (depth 3) and prints the training loss of the last
quarter; `rate` is train.learning_rate, before the rule's factor sqrt(learning_rate_width / width).
The rule holds if the best rate is the same in every row.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from jstar.config import Study
from jstar.data import prepare
from jstar.train import train

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2]
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width in args.widths:
            for rate in args.rates:
                tree["ladder"] = [{"name": "x", "depth": 3, "width": width}]
                tree["train"] |= {"images": args.images, "learning_rate": rate}
                study = Study.parse(tree)
                if not (folder / "data").exists():
                    prepare(study.dataset, folder / "data")
                run = folder / f"{width}-{rate}"
                train(study, "x", 0, folder / "data", run / "out", run / "state",
                      device="cpu", threads=args.threads)  # fmt: skip
                table = pd.read_csv(run / "out" / "telemetry.csv")
                late = table[table["images"] > 0.75 * args.images]
                loss = (late["weighted"] * late["count"]).sum() / late["count"].sum()
                rows.append({"width": width, "rate": rate, "loss": loss})
    print(pd.DataFrame(rows).pivot_table(index="width", columns="rate", values="loss").round(4))


if __name__ == "__main__":
    main()
