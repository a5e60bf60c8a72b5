"""Installations in empty environments: that they work, what they weigh, how soon they answer.

    python benchmarks/install.py OUT.csv PYTHON [PYTHON ...]

For each interpreter, with no pip configuration (the public index alone): a new environment, `pip
install .` (the core), then jstar --help, fit, figures and power there, with torch not installed.
Then a dry run of everything under the pins, as a machine with a GPU would get it: it downloads what
the index gives no metadata for, gigabytes each time. Seconds are processor seconds, the least of 5.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from jstar.records import provenance, write_table

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "results/reference/digits"
CLEAN = {
    **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PIP_FIND_LINKS")},
    "PIP_CONFIG_FILE": os.devnull,
}


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=folder, env=CLEAN, capture_output=True,
                          text=True, check=False)  # fmt: skip


def commands(out: Path) -> dict[str, list[object]]:
    """What must work without torch."""
    curve = TABLES / "curve.csv"
    return {
        "--help": ["--help"],
        "fit": ["fit", "--losses", TABLES / "losses.csv", "--optimal", curve, "--process", "edm",
                "--min-images", 16000, "--bootstrap", 100, "--out", out / "fits"],
        "figures": ["figures", "scaling", "--fits", out / "fits", "--optimal", curve,
                    "--out", out / "figures"],
        "power": ["power", "--alpha", -0.1, "--sizes", 4, "--studies", 2],
    }  # fmt: skip


def seconds(*command: object, folder: Path) -> float:
    """Processor seconds of a command, the least of five."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(*command, folder=folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def megabytes(folder: Path) -> float:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def install(python: str, folder: Path) -> list[tuple[str, float | str]]:
    """(what, value) of one interpreter."""
    run(python, "-m", "venv", folder / "core", folder=folder)
    inside = folder / "core/bin"
    empty = megabytes(folder / "core")
    done = run(inside / "pip", "install", ROOT, folder=folder)
    rows: list[tuple[str, float | str]] = [("core installs", _word(done))]
    listed = run(inside / "pip", "list", "--format=freeze", folder=folder).stdout.split()
    rows += [
        ("core, packages", len([p for p in listed if not p.startswith(("pip=", "setuptools="))])),
        ("core, MB", megabytes(folder / "core") - empty),
        ("core has torch", "yes" if any(p.startswith("torch=") for p in listed) else "no"),
    ]
    for name, arguments in commands(folder).items():
        rows.append((f"jstar {name}", _word(run(inside / "jstar", *arguments, folder=folder))))
    rows.append(("jstar --help, seconds", seconds(inside / "jstar", "--help", folder=folder)))
    run(inside / "pip", "install", "--upgrade", "pip", folder=folder)
    everything = run(
        inside / "pip", "install", "--dry-run", "--ignore-installed",
        "-c", ROOT / "envs/constraints.txt", f"{ROOT}[all,dev,docs]", folder=folder,
    )  # fmt: skip
    rows.append(("all and dev under the pins resolve", _word(everything)))
    would = re.search("Would install (.*)", everything.stdout)
    packages = would[1].split() if would else []
    rows += [
        ("all and dev, packages", len(packages)),
        ("torch", next((p for p in packages if p.startswith("torch-")), "none")),
        ("CUDA libraries", sum(p.startswith("nvidia-") for p in packages)),
    ]
    return rows


def _word(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    return "yes" if done.returncode == 0 else f"no, exit status {done.returncode}"


def main() -> None:
    out, pythons = Path(sys.argv[1]), sys.argv[2:]
    rows = []
    for python in pythons:
        version = run(python, "--version", folder=ROOT).stdout.split()[-1]
        with tempfile.TemporaryDirectory() as name:
            rows += [(version, *row) for row in install(python, Path(name))]
        frame = pd.DataFrame(rows, columns=["python", "what", "value"])
        print(frame[frame["python"] == version].to_string(header=False, index=False), flush=True)
        # After each: the next takes minutes, and hours where the machine is busy.
        command = "python benchmarks/install.py OUT.csv PYTHON ..."
        write_table(out, frame, provenance(command=command))


if __name__ == "__main__":
    main()
