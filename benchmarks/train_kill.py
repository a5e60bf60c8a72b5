"""Thirty SIGKILLs at random moments: python benchmarks/train_kill.py [--kills 30] [--noise].

Trains the digits study's smallest size undisturbed, and again while a killer strikes, with a
checkpoint at every chunk. Every second kill waits for a half-written file, the others come at a
random moment after a checkpoint of this session. Every snapshot and the telemetry table must be
equal to the last bit (with --noise, which trains by the optimal-loss law, that law's table too).
Exit status 1 if they are not.
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


def command(stage: str, config: Path, results: Path, *more: str) -> list[str]:
    common = ["--config", str(config), "--results", str(results)]
    return [sys.executable, "-m", "jstar", stage, *common, *more]


def newest(state: Path) -> str:
    """Name of the newest complete checkpoint."""
    return max((marker.name for marker in state.glob("[0-9]*.json")), default="")


def contents(run: Path) -> dict[str, bytes]:
    """What must not depend on interruptions."""
    files = [*sorted((run / "snapshots").iterdir()), run / "telemetry.csv"]
    files += run.glob("noise_law.csv")
    return {file.name: file.read_bytes() for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=250_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", action="store_true", help="train by the optimal-loss law")
    args = parser.parse_args()
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    tree["train"] |= {"images": args.images, "checkpoint_images": 1}
    if args.noise:
        tree["train"]["noise"] = {"law": "optimal_loss"}
    name = tree["ladder"][0]["name"]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "study.yaml"
        config.write_text(yaml.safe_dump(tree))
        runs = {}
        for kind in ("calm", "stormy"):
            results = Path(folder) / kind
            for stage in ("prepare", "optimal") if args.noise else ("prepare",):
                subprocess.run(command(stage, config, results), check=True, capture_output=True)
            runs[kind] = results / "runs" / tree["study"] / f"{name}-s0"

        def start(kind: str) -> "subprocess.Popen[bytes]":
            more = ["--model", name, "--threads", "1", "--device", "cpu"]
            return subprocess.Popen(
                command("train", config, Path(folder) / kind, *more), stderr=subprocess.DEVNULL
            )

        assert start("calm").wait() == 0
        state = Path(folder) / "stormy" / "state" / tree["study"] / f"{name}-s0" / "checkpoints"
        random, struck, writing = np.random.default_rng(args.seed), 0, 0
        while struck < args.kills:
            process, before = start("stormy"), newest(state)
            while process.poll() is None and newest(state) == before:
                time.sleep(0.01)
            if struck % 2:
                time.sleep(random.uniform(0, 0.5))
            else:
                while process.poll() is None and not list(state.glob(".*")):
                    pass
            if process.poll() is not None:
                break  # finished before it could be struck
            process.kill()
            process.wait()
            struck += 1
            writing += bool(list(state.glob(".*")))
        assert start("stormy").wait() == 0
        equal = contents(runs["calm"]) == contents(runs["stormy"])
        print(f"{struck} kills, {writing} of them inside a checkpoint write: "
              f"{'bitwise equal' if equal else 'DIFFERENT'}")  # fmt: skip
        sys.exit(not equal)


if __name__ == "__main__":
    main()
