"""Standard errors of the three forms at equal draws (the paper's moment form, pair, with controls).

python benchmarks/optimal_forms.py IMAGES.npy OUT.csv [DRAWS]     uint8 [N, C, H, W]; default 256
The moment form needs D* at every noise scale, so a few noise scales and draws: errors of all forms
fall alike with the square root of the draws, and few draws give the fewest controls. Where the
posterior is decided in every draw (small sigma) the ratio is huge and means nothing.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jstar.config.dataset import FORMS
from jstar.optimal import optimal_loss
from jstar.records import provenance, write_table

SIGMAS = np.array([0.5, 1.0, 2.0, 4.0, 7.0, 15.0, 40.0, 80.0])


def main():
    torch.set_num_threads(2)
    images, draws = np.load(sys.argv[1]), int((*sys.argv[3:], 256)[0])
    table = pd.DataFrame({"sigma": SIGMAS})
    seconds = {}
    for form in FORMS:
        start = time.perf_counter()
        curve = optimal_loss(images, SIGMAS, queries=draws, form=form, antithetic=False)
        seconds[form] = time.perf_counter() - start
        table[f"loss {form}"], table[f"stderr {form}"] = curve.loss, curve.stderr
        table[f"used {form}"] = curve.form
    table["moment / controls"] = table["stderr moment"] / table["stderr pair+controls"]
    print(table[["sigma", "used pair+controls", "moment / controls"]].to_string(), seconds)
    command = f"python benchmarks/optimal_forms.py {Path(sys.argv[1]).name} {sys.argv[2]} {draws}"
    facts = {"draws": draws, "points": len(images), "seconds": seconds}
    write_table(Path(sys.argv[2]), table, provenance(command=command, **facts))


if __name__ == "__main__":
    main()
