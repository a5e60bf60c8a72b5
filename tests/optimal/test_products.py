"""Products of int8 matrices without 8-bit dot products: exact, and the same J* by either way."""

import numpy as np
import pytest
import torch

from jstar.optimal import optimal_loss
from jstar.optimal.draws import NOISE_LEVELS
from jstar.optimal.exact import distances, products, softmax_sums
from jstar.optimal.exact.products import PackedPoints, packed_product

SIZES = [(7, 33, 11), (100, 50, 1025), (13, 16, 512), (96, 17, 3072), (1, 1, 1), (53, 40, 2056)]


@pytest.fixture
def kernel():
    if products.products_kernel() is None:
        pytest.skip("no C compiler, or no AVX2")


def whole(size, high, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(-high - (high == 127), high + 1, size, dtype=torch.int8, generator=draw)


@pytest.mark.parametrize(("rows", "count", "dim"), SIZES)
def test_products_are_exact(kernel, rows, count, dim):
    z_ND = whole((count, dim), 127, 1)
    a_MD, small_MD = whole((rows, dim), 127, 2), whole((rows, dim), NOISE_LEVELS, 3)
    packed = PackedPoints.of(z_ND, narrow=True)
    for x_MD, narrow in ((a_MD, False), (small_MD, False), (small_MD, True)):
        out_MN = torch.full((rows, count), 7, dtype=torch.int32)
        packed.product(x_MD, out_MN, narrow=narrow)
        assert torch.equal(out_MN.double(), x_MD.double() @ z_ND.double().t())
    assert torch.equal(packed_product(a_MD, z_ND).double(), a_MD.double() @ z_ND.double().t())


@pytest.mark.parametrize("low", [False, True])
def test_the_largest_values_do_not_overflow(kernel, low):
    """Four products of 32 and 255 are 32,640: with 33 they would not fit."""
    z_ND = torch.full((40, 33_000), -128 if low else 127, dtype=torch.int8)
    packed = PackedPoints.of(z_ND, narrow=True)
    for value, narrow in ((NOISE_LEVELS, True), (-NOISE_LEVELS, True), (-128, False), (127, False)):
        a_MD, out_MN = torch.full((6, 33_000), value, dtype=torch.int8), torch.empty((6, 40))
        out_MN = out_MN.to(torch.int32)
        packed.product(a_MD, out_MN, narrow=narrow)
        assert (out_MN == 33_000 * value * int(z_ND[0, 0])).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_j_star_is_the_same_with_and_without_8_bit_units(kernel, monkeypatch, threads):
    images = np.random.default_rng(0).integers(0, 256, (3000, 5, 7, 3), dtype=np.uint8)
    sigmas, known = np.geomspace(0.05, 20, 9), torch.get_num_threads()
    curves = []
    torch.set_num_threads(threads)
    try:
        for units in (True, False):
            for room in (distances, softmax_sums):
                monkeypatch.setattr(room, "has_int8_units", lambda units=units: units)
            curves.append(optimal_loss(images, sigmas, queries=300, precision="int8"))
    finally:
        torch.set_num_threads(known)
    np.testing.assert_array_equal(curves[0].loss, curves[1].loss)
    np.testing.assert_array_equal(curves[0].stderr, curves[1].stderr)


def test_without_units_and_without_a_compiler_the_product_is_exact(monkeypatch):
    monkeypatch.setattr(distances, "has_int8_units", lambda: False)
    monkeypatch.setattr(products, "products_kernel", lambda: None)
    a_MD, z_ND = whole((9, 5000), 127, 1), whole((21, 5000), 127, 2)
    expected = a_MD.double() @ z_ND.double().t()
    assert torch.equal(distances.int8_product(a_MD, z_ND).double(), expected)
    assert not distances.int8_is_fast(torch.device("cpu"))


@pytest.mark.parametrize(("capability", "flags", "exact", "faster", "expected"), [
    ("AVX2", "avx2", True, True, False),
    ("AVX2", "avx2 avx_vnni", True, True, True),
    ("AVX2", "avx2 avx_vnni", True, False, False),
    ("AVX2", "avx2 avx_vnni", False, True, False),  # ONEDNN_MAX_CPU_ISA=AVX2
    ("AVX512", "avx512_vnni", True, None, True),  # never timed
    ("AVX512", "avx512_vnni", False, None, False),
])  # fmt: skip
def test_torchs_product_is_used_where_it_is_exact_and_faster(
    capability, flags, exact, faster, expected, monkeypatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: "avx512_vnni" in flags)
    monkeypatch.setattr(distances, "cpu_features", lambda: f"flags : {flags}")
    monkeypatch.setattr(distances, "_torch_is_exact", lambda: exact)
    monkeypatch.setattr(distances, "_torch_is_faster", lambda: {True: True, False: False}[faster])
    monkeypatch.setattr(distances.products, "products_kernel", lambda: "compiled")
    assert distances.has_int8_units() == expected
    assert distances.int8_is_fast(torch.device("cpu"))  # the noise is of the kind of machine


def test_a_product_that_saturates_is_found(monkeypatch):
    def saturating(a, b):
        return (a.int() @ b.int()).clamp(-(2**15), 2**15 - 1)

    distances._torch_is_exact.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", saturating)
    try:
        assert not distances._torch_is_exact()
    finally:
        distances._torch_is_exact.cache_clear()
