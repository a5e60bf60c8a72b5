"""Thirty SIGKILLs at random moments: python benchmarks/train_kill.py [--kills 30] [--noise].

Trains the digits study's smallest size with two cooldowns undisturbed, and again while a killer
strikes, with a checkpoint at every chunk, on a disk that takes --disk MB/s (a checkpoint is .12 MB,
and training goes on while it is written). Every second kill waits for a half-written file and then
some of the time that it takes, the others come at a random moment after a checkpoint of this
session. Every snapshot and the telemetry
table must be equal to the last bit (with --noise, which trains by the optimal-loss law, that law's
table too). With --processes 2 two train under FSDP, each with its part of a checkpoint; they are
struck in random order, the second a moment after the first.
Exit status 1 if they are not.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import yaml

from jstar.config import Study

ROOT = Path(__file__).resolve().parents[1]
THROTTLE = ROOT / "benchmarks" / "throttle.py"
MARKERS = "[0-9]*.json"  # of complete checkpoints


def command(stage: str, config: Path, results: Path, *more: str) -> list[str]:
    common = ["--config", str(config), "--results", str(results)]
    return [sys.executable, "-m", "jstar", stage, *common, *more]


def checkpoints(state: Path, pattern: str) -> set[Path]:
    """Files among the checkpoints of the run and of its branches."""
    found: set[Path] = set()
    for folder in (state / "checkpoints", *(state / "branches").glob("*")):
        with suppress(FileNotFoundError):  # a branch that has just ended
            found.update(folder.glob(pattern))
    return found


def ranks(command: list[str], count: int) -> "list[subprocess.Popen[bytes]]":
    """The processes of one run, the first rank's first."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            command, stderr=subprocess.DEVNULL, env={**os.environ, **group, "RANK": str(rank)}
        )
        for rank in range(count)
    ]


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
    parser.add_argument("--disk", type=float, default=4.0, help="MB/s of the disk, simulated")
    parser.add_argument("--processes", type=int, default=1, help="more than one: FSDP")
    parser.add_argument("--noise", action="store_true", help="train by the optimal-loss law")
    args = parser.parse_args()
    tree = Study.load(ROOT / "config" / "digits.yaml").model_dump(mode="json")
    tree["ladder"] = [tree["ladder"][0] | {"flops": None, "images": args.images}]
    tree["train"] |= {"checkpoint_images": 1, "cooldown": {"snapshots": 2}}
    if args.processes > 1:
        tree["train"]["parallel"] = "fsdp"
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

        def start(kind: str) -> "list[subprocess.Popen[bytes]]":
            more = ["--model", name, "--threads", "1", "--device", "cpu"]
            run = command("train", config, Path(folder) / kind, *more)
            slow = [sys.executable, str(THROTTLE), str(1e6 * args.disk), *run[3:]]
            return ranks(run if kind == "calm" else slow, args.processes)

        assert not any(process.wait() for process in start("calm"))
        state = Path(folder) / "stormy" / "state" / tree["study"] / f"{name}-s0"
        random, struck, writing, late = np.random.default_rng(args.seed), 0, 0, 0
        while struck < args.kills:
            processes, before = start("stormy"), checkpoints(state, MARKERS)
            process = processes[0]
            while process.poll() is None and checkpoints(state, MARKERS) == before:
                time.sleep(0.01)
            if struck % 2:
                time.sleep(random.uniform(0, 0.5))
            else:
                while process.poll() is None and not checkpoints(state, ".*"):
                    time.sleep(0.002)
                time.sleep(random.uniform(0, 0.1))
            if process.poll() is not None:
                break  # finished before it could be struck
            for k in random.permutation(len(processes)):
                processes[k].kill()
                processes[k].wait()
                time.sleep(random.uniform(0, 0.1))
            struck += 1
            writing += bool(checkpoints(state, ".*"))
            run = (state / "checkpoints").glob(MARKERS)
            late += max((int(marker.stem) for marker in run), default=0) >= args.images
        assert not any(process.wait() for process in start("stormy"))
        equal = contents(runs["calm"]) == contents(runs["stormy"])
        print(f"{struck} kills, {writing} of them inside a checkpoint write, {late} in a cooldown: "
              f"{'bitwise equal' if equal else 'DIFFERENT'}")  # fmt: skip
        sys.exit(not equal)


if __name__ == "__main__":
    main()
