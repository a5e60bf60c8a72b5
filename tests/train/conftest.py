"""A prepared tiny dataset and a way to train on it."""

from pathlib import Path

import pytest

from jstar.config import OptimalConfig, Study
from jstar.data import open_dataset, prepare
from jstar.noise import sigma_grid
from jstar.optimal.stage import dataset_curve
from jstar.train import train


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Folder of 256 prepared digits."""
    folder = tmp_path_factory.mktemp("digits")
    tree = {"name": "digits", "source": "digits", "limit": 256}
    prepare(Study.model_fields["dataset"].annotation.model_validate(tree), folder)
    return folder


@pytest.fixture(scope="session")
def curve(digits, tmp_path_factory):
    """curve.csv of those digits: the optimal loss of all 256."""
    path = tmp_path_factory.mktemp("optimal") / "curve.csv"
    dataset = open_dataset(digits)
    config = OptimalConfig(queries=256)
    optimal = dataset_curve(dataset, sigma_grid(0.05, 20, 40), config, conditional=False)
    optimal.write(path, card_id=dataset.card.id, seed=config.seed)
    return path


@pytest.fixture
def run_tiny(tmp_path, digits, tiny_study):
    """`run_tiny(name, **overrides)`: train the tiny study; returns status and folder."""

    def run(name="run", model="d1", seed=0, curve=None, **overrides):
        study = Study.parse(tiny_study(**overrides))
        folder = tmp_path / name
        status = train(
            study, model, seed, digits, folder / "out", folder / "state",
            curve=curve, device="cpu", threads=1,
        )  # fmt: skip
        return status, folder

    return run


@pytest.fixture
def contents():
    """`contents(folder)`: every file of a finished run that must not depend on interruptions."""

    def read(folder: Path) -> dict[str, bytes]:
        out = folder / "out"
        files = [*sorted((out / "snapshots").iterdir()), out / "telemetry.csv"]
        files += out.glob("noise_law.csv")
        return {file.name: file.read_bytes() for file in files}

    return read
