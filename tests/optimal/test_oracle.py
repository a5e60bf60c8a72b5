"""Posterior means against the textbook; the oracle set; the stage's files."""

import numpy as np
import pytest

from jstar.config import Study
from jstar.curve import read_curve
from jstar.data import open_dataset, prepare
from jstar.errors import JstarError
from jstar.optimal import posterior_mean
from jstar.optimal.oracle import build_oracle, open_oracle
from jstar.optimal.stage import write_curve, write_oracle
from jstar.optimal.textbook import best_denoiser

STUDY = {
    "study": "t",
    "dataset": {"name": "digits", "source": "digits", "limit": 300},
    "sigmas": {"min": 0.2, "max": 5, "count": 5},
    "optimal": {"queries": 128},
    "evaluate": {"queries": 500},
    "ladder": [{"name": "d1", "depth": 1}],
    "train": {"images": 5000, "batch": 64},
}


def make(tmp_path, **dataset):
    study = Study.parse({**STUDY, "dataset": {**STUDY["dataset"], **dataset}})
    prepare(study.dataset, tmp_path / "data")
    return study, open_dataset(tmp_path / "data")


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("sigma", [0.02, 0.3, 1.0, 30.0])
def test_posterior_mean_equals_the_textbook(precision, sigma):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (500, 2, 3, 4), dtype=np.uint8)
    x_ND = (images.reshape(500, -1) - 127.5) / 127.5
    x = x_ND[:40] + sigma * random.standard_normal((40, 24))
    found = posterior_mean(x.reshape(40, 2, 3, 4), images, sigma, precision=precision)
    assert found.shape == (40, 2, 3, 4)
    assert np.abs(found.reshape(40, -1) - best_denoiser(x, x_ND, sigma)).max() < 2e-5


def test_posterior_mean_of_float_images():
    random = np.random.default_rng(1)
    points = random.standard_normal((300, 8)) * 3 + 5
    x = points[:20] + random.standard_normal((20, 8))
    assert np.abs(posterior_mean(x, points, 1.0) - best_denoiser(x, points, 1.0)).max() < 2e-5


@pytest.mark.parametrize("mirror", [False, True])
def test_oracle_holds_the_posterior_means_of_its_draws(tmp_path, mirror):
    study, dataset = make(tmp_path, mirror=mirror)
    write_oracle(study, tmp_path / "data", tmp_path / "oracle")
    oracle = open_oracle(tmp_path / "oracle")
    assert oracle.card_id == dataset.card.id
    assert len(oracle.index_M) == (500 if mirror else 300)
    assert oracle.mirrored_M.any() == mirror
    pairs = set(zip(oracle.index_M, oracle.mirrored_M, strict=True))
    assert len(pairs) == len(oracle.index_M)
    x0, noise = oracle.x0(dataset), oracle.noise()
    points = dataset.scaled(slice(None))
    if mirror:
        points = np.concatenate([points, points[..., ::-1]])
    for s, sigma in enumerate(oracle.sigma):
        x = (x0 + sigma * noise).reshape(len(x0), -1)
        expected = best_denoiser(x[:50].astype(float), points.reshape(len(points), -1), sigma)
        found = oracle.posterior_mean(s)[:50].reshape(50, -1)
        assert np.abs(found - expected).max() < 1e-4


def test_oracle_by_class_uses_the_points_of_the_class(tmp_path):
    _, dataset = make(tmp_path)
    build_oracle(
        dataset, [1.0], queries=64, seed=4, estimator="exact_by_class", out=tmp_path / "oracle"
    )
    oracle = open_oracle(tmp_path / "oracle")
    x = (oracle.x0(dataset) + oracle.noise()).reshape(64, -1)
    points = dataset.scaled(slice(None)).reshape(300, -1)
    for m in (0, 20, 63):
        same = dataset.labels_N == dataset.labels_N[oracle.index_M[m]]
        expected = best_denoiser(x[m : m + 1].astype(float), points[same], 1.0)
        assert np.abs(oracle.posterior_mean(0)[m].reshape(1, -1) - expected).max() < 1e-4


def test_oracle_refuses_another_dataset(tmp_path):
    study, _ = make(tmp_path)
    write_oracle(study, tmp_path / "data", tmp_path / "oracle")
    _, other = make(tmp_path / "other", mirror=True)
    with pytest.raises(JstarError, match="must not be mixed"):
        open_oracle(tmp_path / "oracle").x0(other)
    with pytest.raises(JstarError, match=r"holds no oracle\.json"):
        open_oracle(tmp_path / "nowhere")


def test_curve_survives_the_disk(tmp_path):
    study, dataset = make(tmp_path)
    curve = write_curve(study, tmp_path / "data", tmp_path / "curve.csv")
    again = read_curve(tmp_path / "curve.csv")
    assert np.allclose(curve.loss, again.loss, rtol=1e-8)
    assert np.allclose(curve.correlation_SS, again.correlation_SS, atol=1e-6)
    assert again.closure == pytest.approx(curve.closure, rel=1e-6)
    assert again.queries == 128
    assert dataset.card.id in (tmp_path / "curve.json").read_text()
