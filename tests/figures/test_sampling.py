"""The figures of the sampling stage, drawn from the committed tables."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from matplotlib import pyplot as plt

from jstar.figures import gap_quality, samples, theory
from jstar.figures.style import model_labels, save

REFERENCE = ROOT / "results" / "reference"


def table(name):
    return pd.read_csv(REFERENCE / "sampling" / f"{name}.csv")


def legends(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_gap_and_quality(tmp_path):
    losses = pd.read_csv(REFERENCE / "digits-equal-images" / "losses.csv")
    own = table("quality").drop_duplicates(["run", "snapshot"])
    figure, numbers = gap_quality.draw_gap_quality(own, losses, table("correlation"))
    assert numbers["runs"] == 8
    # The paper's claim, on the default study: the gap tells more than the loss.
    assert numbers["coefficient"]["gap"] >= numbers["coefficient"]["loss"]
    assert "10.9k" in legends(figure)
    save([figure], tmp_path / "gap_quality")
    assert (tmp_path / "gap_quality.pdf").read_bytes().startswith(b"%PDF")


def test_few_runs_still_give_a_figure():
    losses = pd.read_csv(REFERENCE / "digits-equal-images" / "losses.csv")
    own = table("quality").drop_duplicates(["run", "snapshot"]).head(2)
    blank = table("correlation").assign(pearson=np.nan, pearson_low=np.nan, pearson_high=np.nan)
    _, numbers = gap_quality.draw_gap_quality(own, losses, blank)
    assert np.isnan([numbers["coefficient"][of] for of in ("loss", "gap")]).all()


def test_theory_with_and_without_trials():
    figure, numbers = theory.draw_sampling_theory(
        table("bounds"), table("steps"), table("theory_quality")
    )
    assert numbers["run"] == "d7-s0"
    assert {"no gap", "sde, exponential", "414k"} <= set(legends(figure))
    figure, _ = theory.draw_sampling_theory(table("bounds"), table("steps"), None)
    assert "sde, exponential" not in legends(figure)


def test_a_grid_of_grey_and_of_coloured_images():
    for channels in (1, 3, 4):
        images = np.random.default_rng(0).normal(size=(9, channels, 8, 8)).astype(np.float32)
        label = samples.row_label("d1", 12_300, 1_000)
        figure = samples.draw_samples(
            [samples.Drawn("data", images), samples.Drawn(label, images, 2.5)]
        )
        titles = [panel.get_title(loc="left") for panel in figure.axes]
        assert titles == ["data", "d1: 12.3k parameters, 1k images seen,  FID 2.5"]


def test_models_of_one_size_are_told_apart_by_name():
    assert model_labels(["a", "b"], {"a": 1000, "b": 2000}) == {"a": "1k", "b": "2k"}
    assert model_labels(["a", "b"], {"a": 1000, "b": 1000}) == {"a": "a", "b": "b"}
