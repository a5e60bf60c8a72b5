"""Shared by all tests: where real data may lie, and the tiny study."""

import gc
import os
import sys
from pathlib import Path

import pytest

# Before anything loads OpenMP: the problems are tiny, and with a worker on every core their threads
# wait for one another longer than they work. A test of what a second thread changes asks for it.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# As jstar's own process does (jstar.__main__): with torch loaded a search for unused objects that
# finds none takes a tenth of a second.
gc.set_threshold(50_000)

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("JSTAR_TEST_DATA", ROOT.parent / "shared" / "data"))


def pytest_collection_modifyitems(items):
    """Whole studies first: a worker takes a file at a time, and a long one must not be the last."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


@pytest.fixture
def real_data():
    """`real_data(name)`: path of a real data file; skips the test where it is not there."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.is_file():
            pytest.skip(f"{name} is not in {REAL_DATA} (set JSTAR_TEST_DATA)")
        return path

    return find


@pytest.fixture
def tiny_study():
    """`tiny_study(**overrides)`: a study that trains in a second or two, as a plain tree."""

    def make(**overrides):
        tree = {
            "study": "tiny",
            "dataset": {"name": "digits", "source": "digits", "limit": 256},
            "sigmas": {"min": 0.05, "max": 20, "count": 6},
            "optimal": {"queries": 256},
            "model": {"patch": 4, "width_per_depth": 8, "head_width": 8},
            "ladder": [{"name": "d1", "depth": 1, "seeds": [0, 1]}, {"name": "d2", "depth": 2}],
            "train": {
                "images": 6400, "batch": 64, "learning_rate": 0.003, "learning_rate_width": 16,
                "warmup_images": 640, "snapshots": 6, "first_snapshot": 640,
            },
            "evaluate": {"queries": 64},
            "fit": {"bootstrap": 100},
        }  # fmt: skip
        for key, value in overrides.items():
            if isinstance(value, dict):
                tree[key] = {**tree.get(key, {}), **value}
            else:
                tree[key] = value
        return tree

    return make


@pytest.fixture
def jstar(monkeypatch, capsys):
    """`jstar(*arguments)`: exit status, standard output, standard error."""

    from jstar.cli import main  # after the settings above

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["jstar", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        text = capsys.readouterr()
        return ended.value.code or 0, text.out, text.err

    return run
