"""A prepared tiny dataset with its oracle set, and studies that tune on it."""

import pytest

from jstar.config import Study
from jstar.data import prepare
from jstar.layout import Layout
from jstar.optimal.stage import write_oracle


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Results folder that all studies of these tests share."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def tuning(results, tiny_study):
    """`tuning(name, **overrides)`: layout of a study called `name` that tunes."""

    def make(name, **overrides):
        tune = {
            "enabled": True,
            "share": 0.2,
            "factors": [0.5, 1.0, 2.0],
            **overrides.pop("tune", {}),
        }
        study = Study.parse(tiny_study(study=name, tune=tune, **overrides))
        layout = Layout(study, results)
        if not (layout.oracle / "oracle.json").is_file():
            prepare(study.dataset, layout.data)
            write_oracle(study, layout.data, layout.oracle)
        return layout

    return make
