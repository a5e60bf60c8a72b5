"""Sampled latents: each image is a Gaussian, and J*, oracle and gap are the mixture's."""

from hashlib import sha256

import numpy as np
import pytest

from jstar.config import Study
from jstar.data import open_dataset
from jstar.data.card import Card
from jstar.errors import JstarError
from jstar.evaluate.losses import measure
from jstar.optimal import optimal_loss, posterior_mean
from jstar.optimal.oracle import open_oracle
from jstar.optimal.shards import write_shard
from jstar.optimal.stage import write_curve, write_oracle
from jstar.optimal.textbook import best_mixture_denoiser

COUNT, SHAPE, SCALE = 200, (2, 2, 3), 0.5
STUDY = {
    "study": "t",
    "dataset": {"name": "toy", "source": "edm2"},
    "sigmas": {"min": 0.1, "max": 4, "count": 4},
    "optimal": {"queries": 200},
    "evaluate": {"queries": 200},
    "ladder": [{"name": "d1", "depth": 1}],
    "train": {"images": 5000, "batch": 64},
}


@pytest.fixture
def latents():
    """Centres and deviations float16 [N, C, H, W] in stored units, two classes."""
    random = np.random.default_rng(0)
    means = random.standard_normal((COUNT, *SHAPE)) * 1.5
    stds = random.uniform(0.05, 0.8, (COUNT, *SHAPE))
    return means.astype(np.float16), stds.astype(np.float16), np.arange(COUNT) % 2


@pytest.fixture
def prepared(tmp_path, latents):
    """Folder of a prepared dataset of sampled latents."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = ("images", "stds", "labels")
    for name, array in zip(names, latents, strict=True):
        np.save(folder / f"{name}.npy", array)
    images, stds, labels = (sha256(array.tobytes()).hexdigest() for array in latents)
    Card(
        name="toy", source="edm2", count=COUNT, shape=SHAPE, dtype="float16", offset=0.0,
        scale=SCALE, classes=2, mirror=False, holdout=0, duplicates=0, mean=0.0, std=1.0,
        images_sha256=images, labels_sha256=labels, license="", citation="", sampled=True,
        stds_sha256=stds,
    ).save(folder / "card.json")  # fmt: skip
    return folder


def flat(array):
    return SCALE * array.reshape(len(array), -1).astype(np.float64)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_posterior_mean_of_a_mixture_equals_the_textbook(latents, sigma):
    means, stds, _ = latents
    x = flat(means)[:40] + sigma * np.random.default_rng(1).standard_normal((40, 12))
    found = posterior_mean(
        x.reshape(40, *SHAPE), means, sigma, scale=SCALE, offset=0.0, spread=stds
    )
    expected = best_mixture_denoiser(x, flat(means), flat(stds), sigma)
    assert np.abs(found.reshape(40, -1) - expected).max() < 1e-5


def test_without_spread_it_is_the_loss_of_the_points(latents):
    means = latents[0]
    sigmas = [0.3, 0.6, 1.2]
    options = {"queries": COUNT, "scale": SCALE, "offset": 0.0}
    points = optimal_loss(means, sigmas, form="pair", **options)
    narrow = optimal_loss(means, sigmas, spread=np.full_like(means, 1e-3), **options)
    assert (np.abs(points.loss - narrow.loss) < 4 * np.hypot(points.stderr, narrow.stderr)).all()


def test_by_class_is_the_mean_of_the_classes(latents):
    means, stds, labels = latents
    options = {"scale": SCALE, "offset": 0.0}
    whole = optimal_loss(means, [0.5, 1.5], estimator="exact_by_class", labels=labels,
                         spread=stds, queries=400, **options)  # fmt: skip
    parts = [
        optimal_loss(means[labels == c], [0.5, 1.5], spread=stds[labels == c], queries=400,
                     **options)
        for c in (0, 1)
    ]  # fmt: skip
    error = np.hypot(whole.stderr, np.hypot(parts[0].stderr, parts[1].stderr) / 2)
    assert (np.abs(whole.loss - (parts[0].loss + parts[1].loss) / 2) < 4 * error).all()
    unconditional = optimal_loss(means, [0.5, 1.5], spread=stds, queries=400, **options)
    assert (whole.loss < unconditional.loss).all()


def test_oracle_holds_the_posterior_means_of_draws_from_the_gaussians(prepared, latents):
    study, dataset = Study.parse(STUDY), open_dataset(prepared)
    write_oracle(study, prepared, prepared / "oracle")
    oracle = open_oracle(prepared / "oracle")
    x0, noise = oracle.x0(dataset), oracle.noise()
    centres, widths = (flat(part)[oracle.index_M] for part in latents[:2])
    standard = (x0.reshape(COUNT, -1) - centres) / widths
    assert abs(standard.std() - 1) < 0.05
    for s, sigma in enumerate(oracle.sigma):
        x = (x0 + sigma * noise).reshape(COUNT, -1).astype(np.float64)
        expected = best_mixture_denoiser(x, flat(latents[0]), flat(latents[1]), sigma)
        assert np.abs(oracle.posterior_mean(s).reshape(COUNT, -1) - expected).max() < 1e-4


def test_the_curve_is_the_loss_of_the_oracles_means(prepared):
    """The gap identity end to end: J of a denoiser minus its direct gap is J*."""
    study, dataset = Study.parse(STUDY), open_dataset(prepared)
    curve = write_curve(study, prepared, prepared / "curve.csv")
    write_oracle(study, prepared, prepared / "oracle")
    oracle = open_oracle(prepared / "oracle")
    measured = measure(
        lambda x, sigma, _: x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2),
        oracle.x0(dataset), oracle.noise(), oracle.sigma, posterior_mean=oracle.posterior_mean,
    )  # fmt: skip
    difference = measured.loss_SM - measured.gap_SM
    error = np.hypot(difference.std(1) / np.sqrt(COUNT), curve.stderr)
    assert (np.abs(difference.mean(1) - curve.loss) < 4 * error).all()
    assert curve.closure == (pytest.approx(curve.closure[0]), np.inf)
    assert set(curve.form) == {"posterior variance"}


def test_the_stopping_rule_holds_for_mixtures(latents):
    means, stds, _ = latents
    early = optimal_loss(means, [1.0], spread=stds, queries=400, relative_se=0.2, scale=SCALE)
    late = optimal_loss(means, [1.0], spread=stds, queries=400, relative_se=1e-9, scale=SCALE)
    full = optimal_loss(means, [1.0], spread=stds, queries=400, scale=SCALE)
    assert (early.ended, early.queries) == ("relative_se", 100)
    assert (late.ended, late.loss[0]) == ("queries", pytest.approx(full.loss[0], rel=1e-12))


def test_shards_of_sampled_latents_are_refused(prepared):
    study = Study.parse({**STUDY, "optimal": {"queries": 200, "shards": 2}})
    with pytest.raises(JstarError, match=r"sampled latents\), set optimal.shards to 1"):
        write_shard(study, prepared, prepared / "1-of-2.npz", 1, 2)
    assert not (prepared / "1-of-2.npz").exists()
