"""Twenty SIGKILLs while a run is evaluated: python benchmarks/evaluate_kill.py [--kills 20].

Trains the digits study's smallest size for a short while, evaluates it undisturbed, and again while
a killer strikes at random moments after the first network of each session is measured. losses.csv
and losses.json must be equal byte for byte. Exit status 1 if they are not.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from jstar.config import Study

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    tree["ladder"] = [tree["ladder"][0] | {"flops": None, "images": 40_000}]
    tree["train"] |= {"snapshots": 40, "first_snapshot": 1_000}
    name, random, struck = tree["ladder"][0]["name"], np.random.default_rng(args.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        config, results = Path(folder) / "study.yaml", Path(folder) / "results"
        config.write_text(yaml.safe_dump(tree))
        common = ["--config", str(config), "--results", str(results)]
        run = ["--model", name, "--device", "cpu", "--threads", "1"]

        def start(stage: str, *more: str) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "jstar", stage, *common, *more]
            return subprocess.Popen(command, stderr=subprocess.DEVNULL)

        for stage, more in (("prepare", []), ("oracle", []), ("train", run), ("evaluate", run)):
            assert start(stage, *more).wait() == 0
        table = results / "runs" / tree["study"] / f"{name}-s0" / "losses.csv"
        files = (table, table.with_suffix(".json"))
        calm = [file.read_bytes() for file in files]
        state = results / "state" / tree["study"] / f"{name}-s0" / "evaluate"
        for file in [*files, *state.rglob("*.json")]:
            file.unlink()
        while struck < args.kills:
            process, before = start("evaluate", *run), len(list(state.rglob("[0-9]*.json")))
            while process.poll() is None and len(list(state.rglob("[0-9]*.json"))) == before:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.1))
            if process.poll() is not None:
                break  # finished before it could be struck
            process.kill()
            process.wait()
            struck += 1
        assert start("evaluate", *run).wait() == 0
        same = calm == [file.read_bytes() for file in files]
    print(f"{struck} kills, tables {'equal' if same else 'DIFFERENT'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
