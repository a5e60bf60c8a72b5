"""The runs behind docs/diagnose-gallery.md: python benchmarks/diagnose_gallery.py

Networks of benchmarks/weak_networks.py, diagnosed on the 4,000 images of Fashion-MNIST they were
trained on and on 1,000 of its test images. Writes a folder a network: diagnosis.csv, .json, .md.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from weak_networks import IMAGES, load

from jstar.diagnose import Adapter, diagnose_images, discrete, preconditioned
from jstar.diagnose.readings import ddpm_sigmas

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = 1000
KEPT = ("diagnosis.csv", "diagnosis.json", "diagnosis.md")


def adapters(work: Path) -> dict[str, Adapter]:
    """What is diagnosed, by the name of its folder."""
    eps = load("eps-unet", work)
    return {
        "eps-unet": discrete(eps, ddpm_sigmas()),
        "eps-unet-as-v": discrete(eps, ddpm_sigmas(), "v_prediction"),
        "edm-unet": preconditioned(load("edm-unet", work), "edm"),
        "flow-dit": preconditioned(load("flow-dit", work), "fm"),
    }


def main(train: Path, test: Path, work: Path, out: Path) -> None:
    torch.set_num_threads(1)
    with np.load(train) as stored, np.load(test) as other:
        images, held_out = stored["images"][:IMAGES], other["images"][:HELD_OUT]
    scratch = work / "gallery"
    for name, adapter in adapters(work).items():
        found = diagnose_images(
            adapter, images, held_out=held_out, out=scratch, sigmas=16, queries=512
        )
        print(name, found.summary(), flush=True)
        (out / name).mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            shutil.copy(scratch / file, out / name / file)
        found.plot(scratch / name)
        shutil.copy(scratch / f"{name}.png", out / name / "diagnosis.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="fashion-mnist-train.npz")
    parser.add_argument("--test", type=Path, required=True, help="fashion-mnist-test.npz")
    parser.add_argument("--work", type=Path, required=True, help="of weak_networks.py")
    parser.add_argument("--out", type=Path, default=ROOT / "results/reference/diagnose")
    asked = parser.parse_args()
    main(asked.train, asked.test, asked.work, asked.out)
