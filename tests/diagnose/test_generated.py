"""`--sample N`: a perfect denoiser's images are as good as another draw of the data."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import jstar
from jstar.data import open_dataset
from jstar.diagnose.adapters import Adapter
from jstar.diagnose.generated import SampleOptions, draw_and_score, open_target
from jstar.diagnose.images import prepared_folder
from jstar.errors import JstarError
from jstar.records import read_json
from jstar.sampling.samplers import Sampler, draw_images
from jstar.sampling.steps import noise_steps

COUNT, SEED = 200, 3
FEW = {"sigma_min": 0.05, "sigma_max": 20, "sigmas": 4, "queries": 48, "seed": SEED}


@pytest.fixture(scope="module")
def digits():
    """Half of the digits to train on and half held out, uint8 [N, 8, 8]."""
    pixels = (load_digits().images * 255 / 16).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order[:900]], pixels[order[900:]]


@pytest.fixture(scope="module")
def perfect(digits):
    """The posterior mean of the training half, by float64 sums."""
    data = torch.from_numpy(digits[0]).double().flatten(1) / 127.5 - 1

    def denoise(x, sigma, labels=None):
        square = torch.cdist(x.double().flatten(1), data).square()
        weight = torch.softmax(-square / (2 * sigma.double()[:, None] ** 2), dim=1)
        return (weight @ data).reshape(x.shape).float()

    return denoise


@pytest.fixture(scope="module")
def found(digits, perfect, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    train, test = digits
    return jstar.diagnose(
        {"perfect": perfect, "halved": lambda x, s, y: perfect(x, s) / 2},
        train[..., None], held_out=test[..., None], sample=COUNT, features="pixels", out=out, **FEW,
    ), out  # fmt: skip


def test_the_first_images_can_be_looked_at(found):
    """Rows of 12 images, 8x8 pixels each 8 times as large: drawn ones above training images."""
    good, bad = (Image.open(found[1] / part / "samples.png") for part in ("1", "2"))
    assert good.size == bad.size == (96 + 12 * 68, 4 + 6 * 68)
    tile = np.asarray(good)[4 + 32, 96 + 4 : 96 + 64 : 8, 0] / 127.5 - 1
    first = found[0].findings[0].generated.first_MCHW[0, 0, 4]
    np.testing.assert_allclose(tile, first, atol=0.01)
    last = [np.asarray(sheet)[4 + 5 * 68 :, 96:] for sheet in (good, bad)]
    np.testing.assert_array_equal(*last)  # the same training images


def frechet(x, y):
    """fid_statistics_to_metric of torch-fidelity 0.4, word by word."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(cov_x.dot(cov_y)).astype("complex128")).real.sum()
    apart = x.mean(0) - y.mean(0)
    return apart.dot(apart) + np.trace(cov_x) + np.trace(cov_y) - 2 * root


def test_a_perfect_denoiser_scores_as_the_data_and_a_broken_one_far_worse(found, digits):
    good, bad = (one.generated.scores for one in found[0].findings)
    drawn = found[0].findings[0].generated.target.training
    train, test = (d.reshape(len(d), -1) / 127.5 - 1 for d in digits)
    some = train[np.linspace(0, len(train) - 1, COUNT).round().astype(int)]
    assert drawn["fid"] == pytest.approx(frechet(some, test), rel=1e-4)
    # Its images are training images, each drawn again at random: with replacement.
    rng = np.random.default_rng(0)
    redrawn = [frechet(train[rng.integers(len(train), size=COUNT)], test) for _ in range(30)]
    assert abs(good["fid"] - np.mean(redrawn)) < 4 * np.std(redrawn)
    assert good["precision"] == pytest.approx(drawn["precision"], abs=0.06)
    assert good["recall"] == pytest.approx(drawn["recall"], abs=0.06)
    assert bad["fid"] > 5 * np.mean(redrawn)
    assert bad["precision"] < 0.5 * drawn["precision"]


def test_the_score_is_that_of_the_sampler_s_images(found, digits, perfect):
    steps = noise_steps("polynomial", 18, 0.002, 80.0)
    x = draw_images(perfect, np.arange(COUNT), (1, 8, 8), steps, Sampler("heun"), seed=SEED)
    pixels = np.clip(np.round((x.numpy() + 1) * 127.5), 0, 255).reshape(COUNT, -1) / 127.5 - 1
    test = digits[1].reshape(len(digits[1]), -1) / 127.5 - 1
    good = found[0].findings[0].generated.scores
    assert good["fid"] == pytest.approx(frechet(pixels, test), rel=1e-4)


def test_what_is_written_and_said(found):
    both, out = found
    facts = read_json(out / "1" / "diagnosis.json")["sample"]
    assert facts["scores"] == pytest.approx(both.findings[0].generated.scores)
    assert (facts["count"], facts["against"], facts["against_images"]) == (COUNT, "held-out", 897)
    text = both.findings[0].summary()
    assert "Against the 897 held-out images, 200 images drawn with it (heun, 18 steps)" in text
    page = (out / "1" / "diagnosis.md").read_text()
    assert f"{facts['scores']['fid']:.4g}" in page
    assert "training images" in page


def test_same_seed_same_images_and_no_held_out(digits, perfect, tmp_path):
    np.savez(tmp_path / "d.npz", images=digits[0][..., None])
    data = open_dataset(prepared_folder(tmp_path / "d.npz", tmp_path / "data"))
    target = open_target(data, None, SampleOptions(64, "pixels"), tmp_path, "cpu")

    def score(denoise, seed, batch):
        return draw_and_score(Adapter("it", denoise), target, seed, False, batch, "cpu")

    one, same, other = (score(perfect, s, b) for s, b in ((1, 64), (1, 25), (2, 64)))
    assert one.scores["fid"] == pytest.approx(same.scores["fid"], rel=1e-6)
    assert one.scores["fid"] != pytest.approx(other.scores["fid"], rel=1e-3)
    assert one.facts()["against"] == "training"
    assert "only remembers scores well here" in one.summary()
    broken = score(lambda x, s, y: x * 1e30, 1, 64)
    assert broken.scores is None
    assert "No images could be drawn with it (sampler: 'heun' left" in broken.summary()
    narrow = draw_and_score(
        Adapter("it", perfect, sigma_min=0.1, sigma_max=9.0), target, 1, False, 64, "cpu"
    )
    assert (narrow.config.sigma_min, narrow.config.sigma_max) == (0.1, 9.0)


def test_refusals_come_before_the_work(digits, perfect, tmp_path):
    images = digits[0][..., None]
    with pytest.raises(JstarError, match="--sample 20 is not allowed, at least 64"):
        jstar.diagnose(perfect, images, sample=20, out=tmp_path)
    with pytest.raises(JstarError, match="has no labels to train a classifier on"):
        jstar.diagnose(perfect, images, sample=64, out=tmp_path)
    with pytest.raises(JstarError, match="there are 30 held-out images, at least 40"):
        jstar.diagnose(
            perfect, images, held_out=images[:30], sample=64, features="pixels", out=tmp_path
        )
    assert not (tmp_path / "optimal").exists()
