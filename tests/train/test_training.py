"""Every variant learns; memory options change nothing; the golden losses stay."""

import math
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from jstar.averages import power_exponent
from jstar.config import TrainConfig
from jstar.data import open_dataset
from jstar.model import dit
from jstar.model.block import Block
from jstar.noise import PROCESSES
from jstar.train import optimizer as optimizer_module
from jstar.train.ema import PowerEMA
from jstar.train.optimizer import Optimizer
from jstar.train.parallel import Ranks

# The tiny study's d2, seed 0: training loss of each fifth of the run. Committed, so that a change
# of the arithmetic is seen. Other vector units, or no C compiler, move them by parts in 1e8.
GOLDEN = [1.3943974, 1.1092543, 1.0205533, 0.9867149, 0.9625848]

# Training loss of the last fifth over that of the first, for every variant.
LEARNED = {
    "edm": 0.690, "edm2": 0.638, "vp": 0.282, "ve": 0.465, "v": 0.639, "fm": 0.584, "sd3": 0.559,
    "x0": 0.476, "min-snr": 0.676,
}  # fmt: skip


def fifths(folder):
    table = pd.read_csv(folder / "out" / "telemetry.csv")
    table = table[table["count"] > 0]
    part = np.ceil(table["images"] / table["images"].max() * 5).astype(int)
    total = (table["weighted"] * table["count"]).groupby(part).sum()
    return (total / table["count"].groupby(part).sum()).to_numpy()


def test_golden_losses(run_tiny):
    _, folder = run_tiny(model="d2", train={"images": 12800})
    np.testing.assert_allclose(fifths(folder), GOLDEN, rtol=1e-5)


def linear_ratio(folder, digits):
    """Per noise bin: x0 loss of the last 40 % of a run over the best scalar linear denoiser's."""
    variance = float(open_dataset(digits).scaled(slice(None)).var(0).mean())
    table = pd.read_csv(folder / "out" / "telemetry.csv")
    late = table[(table["images"] > 0.6 * table["images"].max()) & (table["count"] > 0)]
    loss = (late["loss"] * late["count"]).groupby(late["sigma"]).sum()
    loss /= late["count"].groupby(late["sigma"]).sum()
    square = loss.index.to_numpy() ** 2
    return loss / (variance * square / (variance + square))


@pytest.mark.parametrize("name", [*PROCESSES, "min-snr"])
def test_every_variant_learns(name, run_tiny, digits):
    options = {"process": "edm", "min_snr_gamma": 5} if name == "min-snr" else {"process": name}
    status, folder = run_tiny(model="d2", train={"images": 12800, **options})
    losses = fifths(folder)
    assert status.finished
    assert losses[-1] / losses[0] == pytest.approx(LEARNED[name], abs=2e-3)
    assert linear_ratio(folder, digits).min() < 1  # it knows more than the images' variance


@pytest.mark.parametrize("options", [{"microbatch": 24}, {"activation_checkpointing": True}])
def test_memory_options_change_only_the_rounding(options, run_tiny):
    _, plain = run_tiny("plain", model="d2")
    _, other = run_tiny("other", model="d2", train=options)
    np.testing.assert_allclose(fifths(plain), fifths(other), rtol=1e-5)


def test_recomputed_blocks_run_twice(run_tiny, monkeypatch):
    calls, forward = [], Block.forward
    monkeypatch.setattr(
        Block, "forward", lambda self, *args: calls.append(self) or forward(self, *args)
    )
    monkeypatch.setattr(dit, "c_network_takes", lambda *_: False)
    run_tiny("plain", train={"images": 640})
    plain = len(calls)
    run_tiny("other", train={"images": 640, "activation_checkpointing": True})
    assert len(calls) - plain == 2 * plain


def test_compiled_blocks_are_one_graph_and_change_only_the_rounding(run_tiny, monkeypatch):
    """With autograd's graph but not the code generator, which takes minutes on a CPU."""
    compiled = []

    def compile_here(self, **options):
        compiled.append(options)
        torch.nn.Module._compile_here(self, backend="aot_eager", **options)

    monkeypatch.setattr(torch.nn.Module, "_compile_here", torch.nn.Module.compile, raising=False)
    monkeypatch.setattr(torch.nn.Module, "compile", compile_here)
    _, plain = run_tiny("plain", model="d2")
    assert not compiled
    _, other = run_tiny("other", model="d2", train={"compile": True})
    assert compiled == 2 * [{"dynamic": False, "fullgraph": True}]
    np.testing.assert_allclose(fifths(plain), fifths(other), rtol=1e-5)


@pytest.mark.parametrize("norm", [2.0, 0.5])
def test_a_gradient_is_clipped_to_the_norm_that_the_study_names(norm):
    """AdamW's own step hardly feels the gradient's size; its first moment is 0.1 times it."""
    weights = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    config = TrainConfig(images=8000, batch=1, clip_norm=0.8)
    optimizer = Optimizer(weights, config, Ranks(0, 1, torch.device("cpu")))
    for weight in weights:
        weight.grad = torch.full_like(weight, norm / math.sqrt(7))
    optimizer.step(1e-3)
    found = torch.cat([m.flatten() for m in optimizer.moments()["exp_avg"]])
    kept = (1 - config.betas[0]) * min(norm, 0.8)
    torch.testing.assert_close(found, torch.full((7,), kept / math.sqrt(7)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_the_compiler_changes_only_the_rounding(run_tiny):
    _, plain = run_tiny("plain", train={"images": 640})
    _, other = run_tiny("other", train={"images": 640, "compile": True})
    np.testing.assert_allclose(fifths(plain), fifths(other), rtol=1e-4)


def test_bf16_is_close(run_tiny):
    _, plain = run_tiny("plain", model="d2")
    _, half = run_tiny("half", model="d2", train={"precision": "bf16"})
    np.testing.assert_allclose(fifths(plain), fifths(half), rtol=2e-2)
    assert not np.array_equal(fifths(plain), fifths(half))


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_the_average_has_the_length_it_names(std):
    # Average the step number itself: its profile has the relative standard deviation asked for.
    gamma = power_exponent(std)
    steps = np.arange(1, 4001)
    profile = steps.astype(float) ** gamma
    profile /= profile.sum()
    mean = (profile * steps).sum()
    spread = math.sqrt((profile * (steps - mean) ** 2).sum()) / 4000
    assert spread == pytest.approx(std, rel=5e-3)
    weight = torch.zeros(1, dtype=torch.float64)
    ema = PowerEMA([weight], [std])
    for step in steps.tolist():
        weight.fill_(step)
        ema.update(step)
    assert float(ema.averages[std][0]) == pytest.approx(mean, rel=1e-3)


@pytest.mark.parametrize("few", [2**22, 0], ids=["as one tensor", "weight by weight"])
def test_a_step_is_that_of_torchs_adamw(few, monkeypatch):
    monkeypatch.setattr(optimizer_module, "FEW_WEIGHTS", few)
    generator = torch.Generator().manual_seed(0)
    mine, theirs = (
        [torch.nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3)), torch.nn.Parameter(torch.ones(4))]
        for _ in range(2)
    )
    config = TrainConfig(images=8000, batch=1, clip_norm=0.8, weight_decay=0.1)
    optimizer = Optimizer(mine, config, Ranks(0, 1, torch.device("cpu")))
    assert optimizer.whole == (few > 0)
    adamw = torch.optim.AdamW(
        theirs, betas=config.betas, eps=optimizer_module.EPS, weight_decay=config.weight_decay
    )
    for step in range(12):
        adamw.param_groups[0]["lr"] = rate = 0.01 / (step + 1)
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator) * (0.1 if step % 2 else 3.0)
            b.grad = a.grad.clone()
        optimizer.step(rate)
        assert all(a.grad is None for a in mine)
        torch.nn.utils.clip_grad_norm_(theirs, config.clip_norm)
        adamw.step()
    bad = [a.detach().clone() for a in mine]
    for a in mine:
        a.grad = torch.full_like(a, torch.inf)
    optimizer.step(0.01)  # changes nothing
    assert all(torch.equal(a, b) for a, b in zip(mine, bad, strict=True))
    for k, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        torch.testing.assert_close(a, b)
        state = adamw.state[b]
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(optimizer.moments()[key][k], state[key])
    assert optimizer.moments()["step"][0] == 12


def test_a_run_begins_without_torchs_compiler_and_sympy():
    """They took two of the five seconds of every short job."""
    code = """
import sys, torch
from jstar.config import TrainConfig
from jstar.model import DiT, ladder
from jstar.train import loop, run
from jstar.train.objective import Objective
from jstar.train import optimizer as optimizer_module
from jstar.train.optimizer import Optimizer
from jstar.train.parallel import Ranks
network = DiT.drawn(ladder(1, shape=(1, 8, 8), patch=2, width=8, head_width=4), 0)
objective = Objective(network, False)
optimizer = Optimizer([*objective.parameters()], TrainConfig(images=8000, batch=2),
                      Ranks(0, 1, torch.device("cpu")))
x, ones = torch.ones(2, 1, 8, 8), torch.ones(2)
objective(x, ones, None, x, ones)[0].backward()
optimizer.step(0.1)
print({"sympy", "torch._dynamo", "torch._inductor"} & {*sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
