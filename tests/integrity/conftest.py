"""A tiny study that is finished, another of other data."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from jstar.config import Study
from jstar.data import prepare
from jstar.evaluate import write_losses
from jstar.figures.stage import draw_study_figure
from jstar.layout import Layout
from jstar.optimal.stage import write_curve, write_oracle
from jstar.scaling.stage import write_fits
from jstar.train import train

TREE = {
    "study": "tiny",
    "dataset": {"name": "digits", "source": "digits", "limit": 256, "holdout": 32},
    "sigmas": {"min": 0.05, "max": 20, "count": 6},
    "optimal": {"queries": 64},
    "model": {"patch": 4, "width_per_depth": 8, "head_width": 8},
    "ladder": [{"name": "d1", "depth": 1, "seeds": [0, 1]}, {"name": "d2", "depth": 2}],
    "train": {
        "images": 1280, "batch": 64, "learning_rate": 0.003, "learning_rate_width": 16,
        "warmup_images": 64, "snapshots": 3, "first_snapshot": 320,
    },
    "evaluate": {"queries": 32},
    "fit": {"bootstrap": 100, "calibration": 100},
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A folder that holds study.yaml and results/."""

    folder: Path

    @property
    def layout(self):
        return Layout(Study.load(self.folder / "study.yaml"), self.folder / "results")

    def __truediv__(self, name):
        return self.folder / "results" / name

    def options(self):
        return "--config", self.folder / "study.yaml", "--results", self.folder / "results"

    def content(self):
        """Every file but locks, by its bytes."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files if path.name != "lock"}


def made(folder, *, runs, **changes):
    """A study in `folder`, from its data to the losses of `runs`."""
    folder.mkdir(exist_ok=True)
    tree = {**TREE, **changes}
    (folder / "study.yaml").write_text(yaml.safe_dump(tree))
    place = Place(folder)
    study, layout = place.layout.study, place.layout
    prepare(study.dataset, layout.data)
    write_curve(study, layout.data, layout.curve)
    write_oracle(study, layout.data, layout.oracle)
    for run in runs:
        out = layout.run(*run)
        state = layout.state(*run)
        train(study, *run, layout.data, out, state, device="cpu", threads=1)
        write_losses(study, out, layout.data, layout.oracle, layout.losses(*run), state, "cpu")
    return place


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The tiny study up to its fits and one figure. Nobody changes it: see `copied`."""
    place = made(tmp_path_factory.mktemp("finished"), runs=[("d1", 0), ("d1", 1), ("d2", 0)])
    layout, study = place.layout, place.layout.study
    tables = [layout.losses(*run) for run in study.runs()]
    write_fits(
        tables, layout.curve, layout.fits, config=study.fit, process=study.process, ema=study.ema
    )
    draw_study_figure("optimal_loss", study, layout.fits, layout.curve, layout.figures)
    return place


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A study of the same names and other images."""
    dataset = {**TREE["dataset"], "limit": 200}
    return made(tmp_path_factory.mktemp("other"), runs=[("d1", 0)], dataset=dataset)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished study, to be damaged. Files that are linked stay so."""
    folder, known = tmp_path / "copy", {}

    def copy(source, target):
        first = known.setdefault(os.stat(source).st_ino, target)
        if first == target:
            shutil.copy2(source, target)
        else:
            os.link(first, target)

    shutil.copytree(finished.folder, folder, copy_function=copy)
    return Place(folder)
