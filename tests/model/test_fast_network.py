"""The network in C against the same one in torch: values, gradients, threads, fallbacks."""

import pandas as pd
import pytest
import torch
from conftest import ROOT

from jstar.model import DiT, dit, fast_network, ladder

SHAPES = {  # side, patch, width, head width, batch, channels, classes: every code path
    "digits": (8, 2, 20, 4, 40),
    "heads of 8": (8, 2, 48, 8, 40),
    "width below a vector": (8, 2, 12, 4, 5),
    "49 tokens": (28, 4, 48, 16, 3),
    "64 tokens, one head": (8, 1, 24, 24, 3),
    "panels of all widths, copied": (8, 2, 92, 4, 40),  # 2 x 32 + 16 + 8 + 4, and from 64 on
    "49 tokens, copied": (28, 4, 96, 16, 3),
    "4 tokens, a slice of one": (8, 4, 40, 40, fast_network.SLICE + 1),
    "three channels, labels": (8, 2, 12, 4, 100, 3, 5),
    "three numbers a patch": (8, 1, 16, 16, 3, 3),
    "tiles of 128 tokens, rows and columns left over": (8, 2, 132, 44, 33),
    "patches wider than all else": (10, 5, 16, 16, 3, 3),
}


@pytest.fixture(autouse=True)
def kernel():
    if fast_network.network_kernel() is None:
        pytest.skip("no C compiler, or no AVX2 here")


def network_and_input(side, patch, width, head_width, batch, channels=1, classes=0):
    """A two-block network whose weights are all non-zero, its inputs and a target."""
    config = ladder(
        2, shape=(channels, side, side), patch=patch, width=width, head_width=head_width,
        classes=classes,
    )  # fmt: skip
    network = DiT(config).initialise(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    x, target = (torch.randn(batch, channels, side, side, generator=generator) for _ in range(2))
    c_noise = torch.randn(batch, generator=generator)
    labels = torch.randint(classes + 1, (batch,), generator=generator) if classes else None
    assert fast_network.c_network_takes(network, x, c_noise)
    return network, x, c_noise, labels, target


def results(network, x, c_noise, labels, target):
    """Output and all gradients, the input's included."""
    x = x.clone().requires_grad_()
    network.zero_grad()
    out = network(x, c_noise, labels)
    (out - target).square().mean().backward()
    grads = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **grads}


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_torchs(shape, monkeypatch):
    case = network_and_input(*SHAPES[shape])
    found = results(*case)
    case[0].in_c = False
    monkeypatch.setattr(dit, "c_network", None)
    for name, expected in results(*case).items():
        error = torch.linalg.vector_norm(found[name] - expected)
        assert error < 1e-5 * torch.linalg.vector_norm(expected), name


def test_the_number_of_threads_does_not_change_a_bit():
    case = network_and_input(*SHAPES["three channels, labels"])
    assert len(case[1]) > 3 * fast_network.SLICE
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):  # four slices: one after the other, to all at once
            torch.set_num_threads(threads)
            found.append(results(*case))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


def test_gradients_take_the_memory_of_threads_not_of_slices(monkeypatch):
    """A wide network's are as large as its weights: with eight slices of a batch, eight times."""
    network, x, c_noise, labels, target = network_and_input(*SHAPES["three channels, labels"])
    weights, taken, empty = sum(w.numel() for w in network.parameters()), [], torch.empty

    def noted(*size, **options):
        taken.append(empty(*size, **options))
        return taken[-1]

    loss = (network(x, c_noise, labels) - target).square().mean()
    monkeypatch.setattr(torch, "empty", noted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loss.backward()
    finally:
        torch.set_num_threads(before)
    assert sorted(t.numel() // weights for t in taken if t.numel() >= weights) == [1, 2]


@pytest.mark.parametrize("shape", SHAPES)
def test_without_gradients_the_values_are_the_same(shape):
    network, x, c_noise, labels, _ = network_and_input(*SHAPES[shape])
    loud = network(x, c_noise, labels).detach()
    with torch.inference_mode():
        quiet = network(x, c_noise, labels)
    assert torch.equal(quiet, loud)


def test_without_gradients_blocks_share_their_room():
    sizes = {}
    for depth in (1, 5):
        network = DiT(ladder(depth, shape=(1, 8, 8), patch=2, width=16, head_width=4))
        network.initialise(torch.Generator().manual_seed(0))
        weights, x = fast_network._weights(network), torch.zeros(70, 1, 8, 8)
        inputs = (x, torch.zeros(70, 32), None, network.positions_TE)
        for keep in (True, False):
            call = fast_network._Call(network.config, *inputs, weights)
            call.forward(keep=keep)
            sizes[depth, keep] = call.room.numel()
    modulation = 4 * 6 * 16  # an image, of four blocks more
    assert (sizes[5, False] - sizes[1, False]) / 96 == modulation  # three slices of 32
    stream = 4 * 16 * 16
    block = 4 * 16 * (11 * 16 + 2 * 4 + 4 * 16)
    assert (sizes[5, True] - sizes[1, True]) / 96 == modulation + stream + block


def test_a_label_that_is_none_is_refused_by_both_ways():
    network, x, c_noise, labels, _ = network_and_input(*SHAPES["three channels, labels"])
    for wrong in (-1, network.config.classes + 1):
        labels[70] = wrong
        for network.in_c in (True, False):
            with pytest.raises(IndexError):
                network(x, c_noise, labels)


def test_what_is_not_finite_stays_so():
    network, x, c_noise, labels, target = network_and_input(*SHAPES["digits"])
    x[3, 0, 2, 2] = float("nan")
    found = results(network, x, c_noise, labels, target)
    assert found["out"][3].isnan().all()
    assert found["out"][4:].isfinite().all()
    assert not found["blocks.0.qkv.weight"].isfinite().all()


@pytest.mark.parametrize("reason", [
    "tokens", "heads of 10", "float64", "other size", "classic", "recompute", "noise's gradient",
])  # fmt: skip
def test_other_networks_and_inputs_are_left_to_torch(reason):
    side = 9 if reason == "tokens" else 8
    width, head = (60, 10) if reason == "heads of 10" else (48, 8)
    network = DiT(ladder(
        1, shape=(1, side, side), patch=1, width=width, head_width=head,
        classic=reason == "classic",
    ))  # fmt: skip
    network.recompute = reason == "recompute"
    x = torch.zeros(2, 1, side, side, dtype=torch.float64 if reason == "float64" else None)
    x = x.reshape(1, 2, side, side) if reason == "other size" else x
    c_noise = torch.zeros(2, requires_grad=reason == "noise's gradient")
    assert not fast_network.c_network_takes(network, x, c_noise)


@pytest.mark.parametrize("lacking", ["compiler", "AVX2"])
def test_without_a_compiler_or_vector_units_torch_does_it(lacking, monkeypatch):
    case = network_and_input(*SHAPES["digits"])
    if lacking == "compiler":
        monkeypatch.setenv("JSTAR_NATIVE", "0")
    else:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    fast_network.network_kernel.cache_clear()
    try:
        assert fast_network.network_kernel() is None
        assert results(*case)["out"].isfinite().all()
    finally:
        fast_network.network_kernel.cache_clear()


def test_the_committed_tables_say_the_same_as_the_choice():
    benchmarks = ROOT / "results" / "reference" / "benchmarks"
    table = pd.read_csv(benchmarks / "train_network.csv")
    assert set(table["width"]) >= {8, 16, 40, 80, 128, 192, 256, 384, 512}
    narrow = table[table["width"] <= fast_network.SURE_WIDTH]
    assert narrow[["c_times_torch", "forward_c_times_torch"]].min(axis=None) >= 1.1
    grids = {"": 0.05, "_zen5": 0.03, "_zen5_avx2": 0.03}  # 3 %; beside other jobs, noise
    for name, most in grids.items():
        grid = pd.read_csv(benchmarks / f"train_network_grid{name}.csv")
        assert {*grid["width"]} >= {16, 512}
        assert {*grid["batch"]} >= {16, 256}
        assert grid["lost"].max() <= most
