"""FID, KID, precision and recall: closed forms, a public implementation, real data, errors."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits

from jstar.errors import JstarError
from jstar.sampling.quality.distances import (
    FeatureMoments,
    feature_moments,
    fid,
    frechet,
    kid,
    merged_moments,
    precision_recall,
)


def cloud(count, seed=0, shift=0.0, scale=1.0, width=8):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(width, width)) / width**0.5
    return scale * rng.normal(size=(count, width)) @ mix + shift


def digits_halves():
    """Two random halves of the real digits, as vectors."""
    pixels = load_digits().data / 8 - 1
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order[: len(order) // 2]], pixels[order[len(order) // 2 :]]


def test_frechet_of_gaussians_in_closed_form():
    a = FeatureMoments(10, np.array([0.0, 1.0]), np.diag([1.0, 4.0]))
    b = FeatureMoments(10, np.array([3.0, 1.0]), np.diag([9.0, 1.0]))
    assert frechet(a, b) == pytest.approx(9 + (1 - 3) ** 2 + (2 - 1) ** 2)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_by_the_matrix_root():
    a, b = feature_moments(cloud(300)), feature_moments(cloud(200, seed=1, shift=0.5, scale=1.3))
    root = sqrtm(a.cov_FF @ b.cov_FF).real
    expected = np.square(a.mean_F - b.mean_F).sum() + np.trace(a.cov_FF + b.cov_FF - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_covariance_without_full_rank_is_allowed():
    few = feature_moments(cloud(5))
    assert np.isfinite(frechet(few, feature_moments(cloud(400, seed=2))))


def test_moments_merge():
    x = cloud(101)
    both = merged_moments(feature_moments(x[:30]), feature_moments(x[30:]))
    np.testing.assert_allclose(both.cov_FF, np.cov(x, rowvar=False), rtol=1e-10)
    np.testing.assert_allclose(both.mean_F, x.mean(0), rtol=1e-10)


def test_two_halves_of_the_data_are_close():
    one, other = digits_halves()
    apart = fid(one, feature_moments(other)).value
    shifted = fid(
        np.roll(one.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64), feature_moments(other)
    ).value
    total = np.trace(feature_moments(other).cov_FF)
    assert apart < 0.02 * total
    assert shifted > 20 * apart
    halves = kid(one, other)
    assert abs(halves.value) < 4 * halves.se


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_values_of_torchmetrics(scale):
    """FID, and KID over all images, on identical features."""
    public_fid = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance
    public_kid = pytest.importorskip("torchmetrics.image.kid").KernelInceptionDistance
    one, other = (scale * half for half in digits_halves())
    real, fake = (torch.from_numpy(h).view(-1, 1, 8, 8) for h in (one, other))

    class Same(torch.nn.Module):
        num_features = 64

        def forward(self, x):
            return x.flatten(1)

    public = public_fid(feature=Same(), normalize=True, input_img_size=(1, 8, 8)).set_dtype(
        torch.float64
    )
    public.update(real, real=True)
    public.update(fake, real=False)
    assert fid(other, feature_moments(one)).value == pytest.approx(
        float(public.compute()), abs=1e-3
    )

    count = len(one)
    public = public_kid(feature=Same(), subsets=1, subset_size=count)
    public = public.set_dtype(torch.float64)
    public.update(real[:count], real=True)
    public.update(fake[:count], real=False)
    expected = float(public.compute()[0])
    assert kid(other[:count], one).value == pytest.approx(expected, rel=1e-6)


def test_kid_by_its_definition(monkeypatch):
    """Value, and the error that leaves out every image once; however the pairs are cut."""
    x, y = cloud(43), cloud(61, seed=1, shift=0.3)

    def definition(x):
        def kernel(a, b):
            return (a @ b.T / 8 + 1) ** 3

        n, xx, yy = len(x), kernel(x, x), kernel(y, y)
        own = (xx.sum() - np.trace(xx)) / (n * (n - 1))
        real = (yy.sum() - np.trace(yy)) / (61 * 60)
        return own + real - 2 * kernel(x, y).mean()

    left_out = [definition(np.delete(x, k, axis=0)) for k in range(43)]
    error = np.sqrt(42 / 43 * np.square(left_out - np.mean(left_out)).sum())
    for block in (7, 43, 1024):
        monkeypatch.setattr("jstar.sampling.quality.distances.BLOCK", block)
        found = kid(x, y)
        assert found.value == pytest.approx(definition(x), rel=1e-10)
        assert found.se == pytest.approx(error, rel=1e-10)


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.4, 0.5), (300.0, 1.0), (0.0, 1e-3)], ids=["relu", "far", "small"]
)
def test_float32_features_give_the_kid_of_float64(mean, spread):
    rng = np.random.default_rng(0)
    x, y = (mean + spread * rng.normal(size=(1500, 256)) for _ in range(2))
    one, other = x.astype(np.float32), y.astype(np.float32)
    exact = kid(one.astype(np.float64), other.astype(np.float64))
    found = kid(one, other)
    assert abs(found.value - exact.value) < 1e-4 * exact.se
    assert found.se == pytest.approx(exact.se, rel=1e-4)


@pytest.mark.parametrize("measure", [kid, precision_recall])
def test_pairs_are_held_in_parts(measure):
    """All pairs of 6,000 float32 features would be 144 MB."""
    x, y = (cloud(6000, seed=s).astype(np.float32) for s in range(2))
    tracemalloc.start()
    measure(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize("measure", [fid, kid])
def test_the_error_is_the_scatter_over_draws(measure):
    target = cloud(4000, seed=77)
    reference = feature_moments(target) if measure is fid else target[:1000]
    draws = [measure(cloud(400, seed=s, shift=0.2), reference) for s in range(40)]
    scatter = np.std([d.value for d in draws], ddof=1)
    typical = np.mean([d.se for d in draws])
    assert 0.6 < typical / scatter < 1.6


@pytest.mark.parametrize(("count", "known"), [(45, 400), (60, 400), (300, 400), (60, 12)])
def test_the_error_of_fid_leaves_out_every_image_once(count, known):
    """Against the definition; fewer images than features, and a reference without full rank."""
    x = cloud(count, shift=0.2, scale=1.2, width=50)
    reference = feature_moments(cloud(known, seed=1, width=50))
    left_out = [frechet(feature_moments(np.delete(x, k, axis=0)), reference) for k in range(count)]
    expected = np.sqrt((count - 1) / count * np.square(left_out - np.mean(left_out)).sum())
    found = fid(x, reference)
    assert found.se == pytest.approx(expected, rel=2e-4)
    assert found.value == pytest.approx(frechet(feature_moments(x), reference), rel=1e-6)


def test_some_images_know_the_error(monkeypatch):
    x, reference = cloud(3000, shift=0.2), feature_moments(cloud(4000, seed=1))
    whole = fid(x, reference)
    monkeypatch.setattr("jstar.sampling.quality.distances.LEFT_OUT", 1000)
    assert fid(x, reference).value == whole.value
    assert fid(x, reference).se == pytest.approx(whole.se, rel=0.08)


@pytest.mark.parametrize("block", [13, 1024])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_precision_and_recall_by_their_definition(monkeypatch, block, kind):
    monkeypatch.setattr("jstar.sampling.quality.distances.BLOCK", block)
    x, y = cloud(90, shift=5.2), cloud(70, seed=1, shift=5.0)

    def inside(points, manifold):
        reach = [np.sort(np.linalg.norm(manifold - one, axis=1))[3] for one in manifold]
        apart = np.linalg.norm(points[:, None] - manifold, axis=2)
        return (apart <= reach).any(axis=1).mean()

    precision, recall = precision_recall(x.astype(kind), y.astype(kind))
    assert 0 < precision.value < 1
    assert precision.value == inside(x, y)
    assert recall.value == inside(y, x)


def test_precision_and_recall_of_known_manifolds():
    data = cloud(600)
    one, other = precision_recall(cloud(600, seed=1), data)
    assert one.value > 0.85
    assert other.value > 0.85
    far, _ = precision_recall(data + 1000, data)
    assert far.value == 0
    # A generator of one mode alone: all inside the data, most of the data outside of it.
    modes = np.concatenate([data, data + 50])
    precise, covered = precision_recall(cloud(600, seed=2), modes)
    assert precise.value > 0.85
    assert covered.value == pytest.approx(0.5, abs=0.05)
    assert covered.se == pytest.approx((0.25 / 1200) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((3, 2)),), r"shape \(3, 2\), allowed is \[N, F\] with N at least 40"),
        ((np.full((50, 2), np.nan),), "hold NaN"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(JstarError, match=words):
        fid(*arguments, feature_moments(np.zeros((4, 2))))
