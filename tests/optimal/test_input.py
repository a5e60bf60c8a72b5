"""Bad input: one clear sentence each. Subset estimators, stopping rule, kernel and its fallback."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from jstar.errors import JstarError
from jstar.optimal import optimal_loss, posterior_mean
from jstar.optimal.exact import fast_sums
from jstar.optimal.exact.softmax_sums import UNDERFLOW, add_sums_torch

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 4), dtype=np.uint8)
DIGITS = {"offset": 8.0, "scale": 1 / 8}
BY_CLASS = {"estimator": "exact_by_class"}
FLOATS = IMAGES.astype(np.float32)


@pytest.fixture(scope="module")
def digits():
    return load_digits().images.astype(np.uint8)


@pytest.mark.parametrize(
    ("images", "sigmas", "options", "words"),
    [
        (np.where(FLOATS > 250, np.nan, FLOATS), [1.0], {}, "NaN or infinite"),
        (np.where(FLOATS > 250, np.inf, FLOATS), [1.0], {}, "NaN or infinite"),
        (IMAGES.astype(np.int32), [1.0], {}, "allowed are uint8 and floating point"),
        (IMAGES[0, 0], [1.0], {}, "N, ..."),
        (IMAGES, [0.0, 1.0], {}, "every sigma must be above 0"),
        (IMAGES, [2.0, 1.0], {}, "strictly increasing"),
        (IMAGES, [np.nan], {}, "finite"),
        (IMAGES, [1.0], {"scale": 0.0}, "scale must be above 0"),
        (IMAGES, [1.0], {"queries": 1}, "at least 2"),
        (IMAGES, [1.0], {"estimator": "exakt"}, "did you mean 'exact'"),
        (IMAGES, [1.0], {"form": "trio"}, "allowed are"),
        (IMAGES, [1.0], {"precision": "fp8"}, "allowed are auto"),
        (FLOATS, [1.0], {"precision": "int8"}, "needs uint8"),
        (IMAGES, [1.0], BY_CLASS, "labels: are missing"),
        (IMAGES, [1.0], {**BY_CLASS, "labels": np.zeros(39, int)}, "39 given for 40"),
        (IMAGES, [1.0], {**BY_CLASS, "labels": np.zeros(40)}, "allowed is integer"),
        (IMAGES, [1.0], {"estimator": "dol", "subset": 41}, "1 to 40"),
        (IMAGES, [1.0], {"estimator": "cdol", "own_weight": 0.5}, "at least 1"),
        (IMAGES, [1.0], {"estimator": "snis", "repeats": 1}, "at least 2"),
        (IMAGES, [1.0], {"relative_se": -1.0}, "above 0"),
        (IMAGES, [1.0], {"estimator": "dol", "seconds": 1.0}, "not allowed with"),
        (IMAGES, [1.0], {"estimator": "cdol", "form": "pair"}, "not allowed with"),
        (IMAGES, [1.0], {"label_drop": 0.5}, "needs the estimator 'exact_by_class'"),
        (FLOATS, [1.0], {"spread": np.full_like(FLOATS, -1.0)}, "negative"),
        (FLOATS, [1.0], {"spread": np.full_like(FLOATS, np.nan)}, "NaN"),
        (FLOATS, [1.0], {"spread": np.ones((40, 3), np.float32)}, "the images have"),
        (IMAGES, [1.0], {"spread": np.ones(IMAGES.shape)}, "belong to float images"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_sentence(images, sigmas, options, words):
    with pytest.raises(JstarError) as caught:
        optimal_loss(images, sigmas, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_posterior_mean_refuses_bad_input():
    with pytest.raises(JstarError, match="x: has shape"):
        posterior_mean(np.zeros((2, 5)), IMAGES, 1.0)
    with pytest.raises(JstarError, match="NaN"):
        posterior_mean(np.full((2, 3, 4), np.nan), IMAGES, 1.0)


def test_one_point_is_refused_and_twice_the_same_has_no_loss():
    with pytest.raises(JstarError, match="at least 2 are needed"):
        optimal_loss(IMAGES[:1], [0.1, 1.0, 10.0], queries=16)
    curve = optimal_loss(IMAGES[[0, 0]], [0.1, 1.0, 10.0], queries=16)
    assert (curve.loss == 0).all()
    assert (curve.stderr == 0).all()
    assert curve.closure == (0.0, 0.0)


def test_duplicates_lower_what_the_closure_must_come_to(digits):
    few = digits[:200]
    doubled = np.concatenate([few, few])
    curve = optimal_loss(doubled, np.geomspace(0.1, 40, 40), queries=1600, **DIGITS)
    got, expected = curve.closure
    assert expected == pytest.approx(np.log(200))
    assert got == pytest.approx(expected, rel=0.02)


def test_subset_estimators_bracket_the_exact_loss(digits):
    sigmas = [0.6, 1.0, 2.0, 5.0]
    exact = optimal_loss(digits, sigmas, queries=1797, **DIGITS)
    options = {"subset": 300, "queries": 2400, **DIGITS}
    dol = optimal_loss(digits, sigmas, estimator="dol", **options)
    cdol = optimal_loss(digits, sigmas, estimator="cdol", **options)
    snis = optimal_loss(digits, sigmas, estimator="snis", **options)
    assert (dol.loss < exact.loss + 3 * dol.stderr).all()
    assert (dol.loss[:2] < exact.loss[:2] - 5 * dol.stderr[:2]).all()
    assert (snis.loss > exact.loss - 3 * snis.stderr).all()
    assert (snis.loss[:2] > exact.loss[:2] + 5 * snis.stderr[:2]).all()
    closer = np.abs(cdol.loss - exact.loss)[:2]
    assert (closer < np.abs(snis.loss - exact.loss)[:2]).all()
    assert (closer < np.abs(dol.loss - exact.loss)[:2]).all()
    assert (dol.lower == snis.lower).all()
    assert (dol.lower < exact.loss).all()
    assert (exact.loss < dol.upper).all()


def test_a_subset_of_all_points_is_the_exact_loss(digits):
    sigmas = [0.6, 1.0, 2.0, 5.0]
    exact = optimal_loss(digits, sigmas, queries=1797, **DIGITS)
    for estimator in ("dol", "cdol", "snis"):
        all_of_it = optimal_loss(
            digits, sigmas, estimator=estimator, subset=1797, queries=1600, **DIGITS
        )
        error = np.hypot(all_of_it.stderr, exact.stderr)
        assert (np.abs(all_of_it.loss - exact.loss) < 5 * error).all()


def test_stopping_rule_says_what_ended_it(digits):
    early = optimal_loss(digits, [1.0, 3.0], queries=1600, relative_se=0.1, **DIGITS)
    assert (early.ended, early.queries) == ("relative_se", 400)
    late = optimal_loss(digits, [1.0, 3.0], queries=1600, relative_se=1e-9, **DIGITS)
    assert (late.ended, late.queries) == ("queries", 1600)
    full = optimal_loss(digits, [1.0, 3.0], queries=1600, **DIGITS)
    assert np.allclose(late.loss, full.loss, rtol=1e-12)
    short = optimal_loss(digits, [1.0, 3.0], queries=1600, seconds=1e-6, **DIGITS)
    assert (short.ended, short.queries) == ("seconds", 400)


def test_kernel_and_torch_fallback_agree():
    kernel = fast_sums.sums_kernel()
    if kernel is None:
        pytest.skip("no C compiler")
    make = torch.Generator().manual_seed(0)
    q = torch.rand((33, 1000), generator=make) * 50
    e = torch.randn((33, 1000), generator=make) * (2 * q).sqrt()
    h = torch.rand(1000, generator=make)
    beta = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    first, second = torch.zeros((2, 2, 33, 3, 4), dtype=torch.float64)
    fast_sums.sums_float(kernel, q, e, h, beta, UNDERFLOW, first)
    add_sums_torch(q, e, h, beta, second)
    assert torch.allclose(first, second, rtol=2e-5, atol=1e-6)


def test_without_a_compiler_there_is_no_kernel(monkeypatch):
    monkeypatch.setenv("JSTAR_NATIVE", "0")
    fast_sums.sums_kernel.cache_clear()
    try:
        assert fast_sums.sums_kernel() is None
        curve = optimal_loss(IMAGES, [0.5, 1.0], queries=40)
    finally:
        fast_sums.sums_kernel.cache_clear()
    monkeypatch.delenv("JSTAR_NATIVE")
    again = optimal_loss(IMAGES, [0.5, 1.0], queries=40)
    assert np.allclose(curve.loss, again.loss, rtol=1e-5)
