"""Fits the committed losses again and redraws their figures: python benchmarks/reference.py [NAME]

After a change of the fits or of a figure: every table and picture of results/reference then comes
of one version of the code. Needs no torch. `benchmarks/results_page.py` makes the page of them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jstar.manifest import PARENTS
from jstar.records import read_json, sealed, write_json, write_record

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = Path("results") / "reference"  # the tables name their inputs: the same on any machine
# From how many images on (fit.min_images of the study's configuration).
MIN_IMAGES = {
    "digits": 32_000,
    "digits-tuned": 32_000,
    "digits-equal-images": 16_000,
    "cifar10-cpu": 4_000,
    "fashion-mnist": 16_000,
}


def jstar(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "jstar", *map(str, words)], check=True, cwd=ROOT)


def refit(name: str) -> None:
    """Tables and figures that lie in the study's folder already, made again."""
    home = REFERENCE / name
    pictures = sorted((ROOT / home / "figures").glob("*.png"))
    # By which runs: no fit knows that, and their own tables are not here.
    measured = read_json(ROOT / home / "losses.json")
    measured.pop(PARENTS, None)
    with tempfile.TemporaryDirectory() as folder:
        fits = Path(folder) / "fits"
        jstar("fit", "--losses", home / "losses.csv", "--optimal", home / "curve.csv",
              "--process", "edm", "--min-images", MIN_IMAGES[name], "--out", fits)  # fmt: skip
        drawn = Path(folder) / "figures"
        for picture in pictures:
            if (ROOT / home / f"{picture.stem}.csv").is_file() and picture.stem != "cooldown":
                continue  # of the table beside it, which no fit makes
            jstar("figures", picture.stem, "--fits", fits, "--optimal", home / "curve.csv",
                  "--out", drawn)  # fmt: skip
            shutil.copyfile(drawn / picture.name, picture)
        for table in (p for p in fits.rglob("*") if p.is_file()):
            kept = ROOT / home / table.relative_to(fits)
            if kept.is_file():
                shutil.copyfile(table, kept)
    write_record(ROOT / home / "losses.json", measured, [ROOT / home / "losses.csv"])
    for record in (ROOT / home).glob("*.json"):
        _beside(record)


def _beside(record: Path) -> None:
    """A record's parents lie beside it now, not where the fit found them from its own folder.

    Those of folders below it (the trials of each size) are not here.
    """
    facts = read_json(record)
    if known := facts.pop(PARENTS, None):
        beside = {Path(k).name: v for k, v in known.items() if "/" not in k or k.startswith("..")}
        write_json(record, sealed(facts | ({PARENTS: beside} if beside else {})))


def main() -> None:
    """Refit the studies that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", nargs="*", choices=[[], *MIN_IMAGES], default=[])
    for name in parser.parse_args().name or MIN_IMAGES:
        refit(name)


if __name__ == "__main__":
    main()
