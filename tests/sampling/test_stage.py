"""jstar sampling draw on a tiny trained run: the table, the images, labels, refusals."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from jstar.config import Study
from jstar.data import open_dataset, prepare
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.sampling.samplers import Sampler, draw_images
from jstar.sampling.stage import QUALITY_COLUMNS, draw_labels, write_quality
from jstar.sampling.steps import noise_steps
from jstar.train import train
from jstar.train.snapshots import load_denoiser

SAMPLING = {
    "count": 200, "batch": 64, "steps": 6, "snapshots": 2,
    "sweep": [{"sampler": "ancestral", "steps": 4, "spacing": "exponential"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def layout(results, tiny_study):
    """A conditional tiny run, trained once; its reference is made by the first test that asks."""
    changes = {
        "model": {"class_drop": 0.2}, "ladder": [{"name": "d1", "depth": 1}],
        "optimal": {"estimator": "exact_by_class"}, "sampling": SAMPLING,
    }  # fmt: skip
    study = Study.parse(tiny_study(**changes))
    found = Layout(study, results)
    if not found.data.exists():
        prepare(study.dataset, found.data)
        run, state = found.run("d1", 0), found.state("d1", 0)
        train(study, "d1", 0, found.data, run, state, device="cpu", threads=1)
    return found


def write(layout, out, **changes):
    part = layout.study.sampling.model_copy(update=changes)
    study = layout.study.model_copy(update={"sampling": part})
    run = layout.run("d1", 0)
    return write_quality(study, run, layout.data, layout.features, out / "quality.csv", "cpu")


def test_a_row_for_every_snapshot_and_every_trial_of_the_sweep(layout, tmp_path):
    got = write(layout, tmp_path)
    read = pd.read_csv(tmp_path / "quality.csv")
    assert list(read.columns) == list(QUALITY_COLUMNS)
    assert read["snapshot"].to_list() == [2, 5, 5]
    assert read["sampler"].to_list() == ["heun", "heun", "ancestral"]
    assert read["evaluations"].to_list() == [11, 11, 4]
    assert (read["sampled"] == 200).all()
    assert ((read["fid_low"] < read["fid"]) & (read["fid"] < read["fid_high"])).all()
    assert read["fid"].to_list() == pytest.approx(got["fid"].to_list(), rel=1e-8)
    facts = json.loads((tmp_path / "quality.json").read_text())
    assert facts["features"] == read["features"][0]
    squares = np.square(open_dataset(layout.data).scaled(slice(None))).mean()
    assert facts["second_moment"] == pytest.approx(float(squares), rel=1e-5)


def test_the_images_kept_are_those_of_the_sampler(layout, tmp_path):
    write(layout, tmp_path)
    dataset = open_dataset(layout.data)
    with np.load(tmp_path / "samples.npz") as stored:
        assert stored["snapshot"].tolist() == [2, 5]
        assert stored["images"].shape == (2, 64, 1, 8, 8)
        np.testing.assert_array_equal(stored["real"][0], dataset.scaled([0])[0])
        kept = stored["images"][1]
    labels = torch.from_numpy(draw_labels(dataset, layout.study.sampling)[:64])
    expected = draw_images(
        load_denoiser(layout.run("d1", 0), 5, 0.1), np.arange(64), (1, 8, 8),
        noise_steps("polynomial", 6, 0.002, 80.0), Sampler("heun"), labels=labels,
    )  # fmt: skip
    inside = expected.clamp(float(kept.min()), float(kept.max()))
    # Stored as pixels: at most half a grey level away.
    assert (inside - torch.from_numpy(kept)).abs().max() <= 0.5 * dataset.card.scale + 1e-4


def test_the_batch_changes_no_number(layout, tmp_path):
    one, other = (write(layout, tmp_path / str(b), batch=b) for b in (64, 200))
    np.testing.assert_allclose(one["fid"], other["fid"], rtol=1e-3)


def test_labels_have_the_shares_of_the_data_and_guidance_uses_them(layout, tmp_path):
    dataset = open_dataset(layout.data)
    whole = draw_labels(dataset, layout.study.sampling.model_copy(update={"count": len(dataset)}))
    np.testing.assert_array_equal(np.sort(whole), np.sort(dataset.labels_N))
    few = draw_labels(dataset, layout.study.sampling)
    np.testing.assert_array_equal(few, whole[:200])
    plain = write(layout, tmp_path / "plain", sweep=[])
    guided = write(layout, tmp_path / "guided", sweep=[], guidance=3.0)
    assert (plain["fid"] != guided["fid"]).all()


def test_another_distribution_and_an_unfinished_run_are_refused(layout, tmp_path):
    changed = layout.study.dataset.model_copy(update={"limit": 100})
    prepare(changed, tmp_path / "data")
    out = tmp_path / "out" / "quality.csv"
    arguments = (layout.study, layout.run("d1", 0))
    with pytest.raises(JstarError, match="must not be mixed"):
        write_quality(*arguments, tmp_path / "data", layout.features, out)
    with pytest.raises(JstarError, match=r"run.json: cannot be read"):
        write_quality(layout.study, tmp_path, layout.data, layout.features, out)
    assert not out.parent.exists()
