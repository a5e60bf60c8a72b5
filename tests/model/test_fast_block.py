"""The block in C against the same block in torch: values, gradients, threads, fallbacks."""

import pandas as pd
import pytest
import torch
from conftest import ROOT

from jstar.model import DiT, fast_block, ladder

SHAPES = {  # side, patch, width, head width, batch: tokens and widths that need every code path
    "digits": (8, 2, 20, 4, 40),
    "heads of 8": (8, 2, 48, 8, 40),
    "width below a vector": (8, 2, 12, 4, 5),
    "49 tokens": (28, 4, 48, 16, 3),
    "64 tokens, one head": (8, 1, 24, 24, 3),
    "panels of all widths, copied": (8, 2, 92, 4, 40),  # 2 x 32 + 16 + 8 + 4, and from 64 on
    "49 tokens, copied": (28, 4, 96, 16, 3),
    "4 tokens, a slice of one": (8, 4, 40, 40, fast_block.SLICE + 1),
}


@pytest.fixture(autouse=True)
def kernel():
    if fast_block.block_kernel() is None:
        pytest.skip("no C compiler, or no AVX2 here")


def network_and_input(side, patch, width, head_width, batch):
    """A two-block network whose weights are all non-zero, an input and a target."""
    config = ladder(2, shape=(1, side, side), patch=patch, width=width, head_width=head_width)
    network = DiT(config).initialise(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    x, target = (torch.randn(batch, 1, side, side, generator=generator) for _ in range(2))
    return network, x, torch.randn(batch, generator=generator), target


def results(network, x, c_noise, target):
    """Output and all gradients, the input's included."""
    x = x.clone().requires_grad_()
    network.zero_grad()
    out = network(x, c_noise)
    (out - target).square().mean().backward()
    grads = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **grads}


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_torchs(shape):
    case = network_and_input(*SHAPES[shape])
    width, head_width = SHAPES[shape][2:4]
    tokens = torch.empty(1, case[0].config.tokens, width)
    assert fast_block.c_block_takes(tokens, width // head_width)
    found = results(*case)
    case[0].compute_blocks(in_c=False)
    for name, expected in results(*case).items():
        error = torch.linalg.vector_norm(found[name] - expected)
        assert error < 1e-5 * torch.linalg.vector_norm(expected), name


def test_the_number_of_threads_does_not_change_a_bit():
    case = network_and_input(*SHAPES["4 tokens, a slice of one"])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            part = case[0].blocks[0]
            x = torch.randn(100, 4, 40, generator=torch.Generator().manual_seed(0))
            condition = torch.randn(100, 40, generator=torch.Generator().manual_seed(1))
            modulation = part.modulation(condition).detach().requires_grad_()
            layers = (part.qkv, part.proj, part.up, part.down)
            weights = (*(layer.weight for layer in layers), part.qk_scale)
            out = fast_block.c_block(x, modulation, weights, 1)
            found.append([out, *torch.autograd.grad(out.square().sum(), [modulation, *weights])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_without_gradients_the_values_are_the_same_and_nothing_is_kept(shape, monkeypatch):
    network, x, c_noise, _ = network_and_input(*SHAPES[shape])
    sizes, kept = [], fast_block._kept
    monkeypatch.setattr(
        fast_block, "_kept", lambda images, *rest: sizes.append(images) or kept(images, *rest)
    )
    loud = network(x, c_noise).detach()
    with torch.inference_mode():
        quiet = network(x, c_noise)
    assert torch.equal(quiet, loud)
    slices = -(-len(x) // fast_block.SLICE)
    tile = fast_block.MAX_TOKENS // network.config.tokens
    assert sizes == 2 * [len(x)] + 2 * [slices * tile]


def test_what_is_not_finite_stays_so():
    network, x, c_noise, target = network_and_input(*SHAPES["digits"])
    x[3, 0, 2, 2] = float("nan")
    found = results(network, x, c_noise, target)
    assert found["out"][3].isnan().all()
    assert found["out"][4:].isfinite().all()
    assert not found["blocks.0.qkv.weight"].isfinite().all()


@pytest.mark.parametrize(("tokens", "width", "heads", "dtype"), [
    (fast_block.MAX_TOKENS + 1, 48, 6, torch.float32),
    (16, 60, 6, torch.float32),  # heads of 10
    (16, 48, 6, torch.float64),
])  # fmt: skip
def test_other_shapes_are_left_to_torch(tokens, width, heads, dtype):
    assert not fast_block.c_block_takes(torch.empty(2, tokens, width, dtype=dtype), heads)


@pytest.mark.parametrize("lacking", ["compiler", "AVX2"])
def test_without_a_compiler_or_vector_units_torch_does_it(lacking, monkeypatch):
    case = network_and_input(*SHAPES["digits"])
    if lacking == "compiler":
        monkeypatch.setenv("JSTAR_NATIVE", "0")
    else:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    fast_block.block_kernel.cache_clear()
    try:
        assert fast_block.block_kernel() is None
        assert results(*case)["out"].isfinite().all()
    finally:
        fast_block.block_kernel.cache_clear()


def test_the_committed_tables_say_the_same_as_the_choice():
    benchmarks = ROOT / "results" / "reference" / "benchmarks"
    table = pd.read_csv(benchmarks / "train_block.csv")
    assert set(table["width"]) >= {8, 16, 40, 80, 128, 192, 256, 384, 512}
    narrow = table[table["width"] <= fast_block.SURE_WIDTH]
    assert narrow[["c_times_torch", "forward_c_times_torch"]].min(axis=None) >= 1.1
    grid = pd.read_csv(benchmarks / "train_block_grid.csv")
    assert {*grid["width"]} >= {16, 512}
    assert {*grid["batch"]} >= {16, 256}
    assert grid["lost"].max() <= 0.05  # 3 % and the noise of two timings
