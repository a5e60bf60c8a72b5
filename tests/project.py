"""A copy of the project in a folder of its own, and what is run there."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import warm
import yaml
from conftest import ROOT

from jstar.pool import end_with_parent
from jstar.records import read_json

WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch was imported")
sys.meta_path.insert(0, NoTorch())
from jstar.cli import main
main()
"""
COPIED = ["Snakefile", "workflow", "profiles", "envs", "config", "notebooks", "src"]
TINY = ROOT / ".test/tiny.yaml"


def copy_project(folder: Path) -> Path:
    """Copy what a study needs; the copy's package is the one that is imported there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, folder / name, ignore=ignore)
        else:
            shutil.copy(source, folder / name)
    return folder


def environment(folder: Path, *programs: Path) -> dict[str, str]:
    """For commands run in the copy; programs: folders to look into first."""
    places = [*map(str, programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        **os.environ, "PYTHONPATH": str(folder / "src"), "PATH": os.pathsep.join(places),
    }  # fmt: skip


@cache
def warmed() -> Path:
    """A folder with a `jstar` and a `snakemake` that start at once, as long as the tests run."""
    folder = Path(tempfile.mkdtemp(prefix="jstar-warm-"))
    place, code = folder / "socket", warm.__file__
    process = subprocess.Popen(
        [sys.executable, code, "serve", place], preexec_fn=end_with_parent, cwd=folder
    )
    for name in ("jstar", "snakemake"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -ISE {code} {place} {name} "$@"\n')
        program.chmod(0o755)

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    return folder


def snakemake(folder: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess:
    """Run Snakemake in the copy; with `check` a failure shows what it and the jobs printed."""
    done = subprocess.run(
        [warmed() / "snakemake", "--cores", "2", *map(str, arguments)], cwd=folder,
        env=environment(folder, warmed()), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if check:
        logs = "".join(p.read_text() for p in folder.glob("*/**/*.log"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
    return done


def jobs(folder: Path, *arguments: object) -> dict[str, int]:
    """Rules that would run, and how often, as Snakemake's dry run counts them."""
    text = snakemake(folder, "-n", *arguments).stdout
    if "Nothing to be done" in text:
        return {}
    rows = text.split("Job stats:")[1].split("\n\n")[0].splitlines()[3:]
    return {row.split()[0]: int(row.split()[1]) for row in rows}


def without_torch(*arguments: object) -> None:
    """Run `jstar` where importing torch is an error."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def start(folder: Path, *command: object) -> subprocess.Popen:
    """`jstar …` or `snakemake …` in the copy, its output in a file."""
    program, *arguments = map(str, command)
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [warmed() / program, *arguments], cwd=folder, env=environment(folder, warmed()),
            stdout=output, stderr=output,
        )  # fmt: skip


def write_study(folder: Path, **changes: dict) -> Path:
    """The tiny study as config/tiny.yaml of the copy, its parts changed key by key."""
    tree = yaml.safe_load(TINY.read_text())
    for part, keys in changes.items():
        tree[part] = {**tree.get(part, {}), **keys} if isinstance(keys, dict) else keys
    file = folder / "config/tiny.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def train_undisturbed(folder: Path, config: Path, *runs: tuple[str, int]) -> Path:
    """Train (model, seed) runs by the plain commands; the results folder."""
    results = folder / "undisturbed"
    common = ["--config", config, "--results", results]
    train = ["jstar", "train", *common, "--device", "cpu", "--threads", 1]
    commands = [[*train, "--model", model, "--seed", seed] for model, seed in runs]
    for command in [["jstar", "prepare", *common], *commands]:
        assert start(folder, *command).wait(900) == 0, output(folder)
    return results / "runs" / "tiny"


def images_seen(state: Path) -> int:
    """How far the run with this state folder is."""
    file = state / "state.json"
    return read_json(file)["images"] if file.is_file() else 0


def output(folder: Path) -> str:
    """What the started commands printed."""
    return (folder / "output.txt").read_text()


def trained(run: Path) -> dict[str, bytes]:
    """The files of a finished run that must not depend on interruptions."""
    files = [*sorted((run / "snapshots").glob("[0-9]*")), run / "telemetry.csv"]
    assert len(files) > 5
    return {file.name: file.read_bytes() for file in files}
