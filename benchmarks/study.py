"""Wall time and peak memory of the whole default study, from a fresh copy of the checkout.

    python benchmarks/study.py [--cores N] [--configfile config/digits.yaml]

Memory is the sum of the proportional set sizes (shared pages counted once) over Snakemake and all
its jobs, sampled five times a second.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default="all")
    parser.add_argument("--configfile", default="config/digits.yaml")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)
        env = {
            **os.environ,
            "PYTHONPATH": str(folder / "src"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        command = [sys.executable, "-m", "snakemake", "--cores", options.cores,
                   "--configfile", options.configfile, "--quiet"]  # fmt: skip
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
    cores = os.cpu_count()
    print(json.dumps({"seconds": round(seconds, 1), "peak_gib": round(peak / 2**30, 2),
                      "cores": cores, "study": options.configfile}))  # fmt: skip


if __name__ == "__main__":
    main()
