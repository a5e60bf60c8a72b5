"""Wall time and peak memory of the whole default study, from a fresh copy of the checkout.

    python benchmarks/study.py [--cores N] [--configfile config/digits.yaml]
    python benchmarks/study.py --against COMMIT [--rounds 5] [--out FILE.csv]

Memory is the sum of the proportional set sizes (shared pages counted once) over Snakemake and all
its jobs, sampled five times a second. --against: the code of another commit in turns with this one,
both on that commit's study file, in this environment.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from jstar.hardware import cpu_name
from jstar.records import provenance, write_table

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "workflow", "profiles", "envs", "config", "notebooks", "src")


def tree_bytes(process: psutil.Process) -> int:
    """Proportional set size of a process and all its descendants."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def copy_code(folder: Path, commit: str | None) -> None:
    """What a study needs, of the checkout as it is or of a commit."""
    if commit is None:
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        return
    command = ["git", "archive", commit, *PARTS]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def run_study(commit: str | None, config: Path, cores: str) -> tuple[float, float]:
    """Seconds, and GiB at the fullest moment."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_code(folder, commit)
        programs = folder / "programs"
        programs.mkdir()
        (programs / "jstar").write_text(f'#!/bin/sh\nexec {sys.executable} -m jstar "$@"\n')
        (programs / "jstar").chmod(0o755)
        places = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        env = os.environ | {"PYTHONPATH": str(folder / "src"), "PATH": os.pathsep.join(places)}
        command = [sys.executable, "-m", "snakemake", "--cores", cores, "--configfile",
                   str(config), "--quiet"]  # fmt: skip
        start, peak = time.monotonic(), 0
        with (folder / "log").open("w") as log:
            job = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
            watched = psutil.Process(job.pid)
            while job.poll() is None:
                peak = max(peak, tree_bytes(watched))
                time.sleep(0.2)
        seconds = time.monotonic() - start
        if job.returncode:
            sys.exit((folder / "log").read_text()[-3000:])
    return seconds, peak / 2**30


def compare(commit: str, config: str, cores: str, rounds: int) -> pd.DataFrame:
    """A row a round: both codes on the commit's study file, neither always first."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "study.yaml"
        file.write_bytes(subprocess.check_output(["git", "show", f"{commit}:{config}"], cwd=ROOT))
        for number in range(rounds):
            found = {}
            for one in (commit, None) if number % 2 == 0 else (None, commit):
                found[one] = run_study(one, file, cores)
                print(one or "now", *found[one], file=sys.stderr)
            (before, before_gib), (now, now_gib) = found[commit], found[None]
            rows.append({
                "seconds_before": before, "seconds": now, "of_before": now / before,
                "peak_gib_before": before_gib, "peak_gib": now_gib,
            })  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default="all")
    parser.add_argument("--configfile", default="config/digits.yaml")
    parser.add_argument("--against", metavar="COMMIT", help="compare with the code of a commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the comparison's table, provenance beside it")
    options = parser.parse_args()
    if not options.against:
        seconds, peak = run_study(None, ROOT / options.configfile, options.cores)
        print(json.dumps({"seconds": round(seconds, 1), "peak_gib": round(peak, 2),
                          "cores": os.cpu_count(), "study": options.configfile}))  # fmt: skip
        return
    table = compare(options.against, options.configfile, options.cores, options.rounds)
    print(table.to_string(index=False, float_format="%.3g"))
    print(f"median of the ratios: {table['of_before'].median():.3f}")
    if options.out:
        command = " ".join(["python benchmarks/study.py", *sys.argv[1:]])
        write_table(options.out, table, provenance(command=command, device=cpu_name()))


if __name__ == "__main__":
    main()
