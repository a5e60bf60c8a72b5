"""The network: published counts, torch's own counter, one dial, adaLN-Zero."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from jstar.config import LadderEntry, ModelConfig
from jstar.errors import JstarError
from jstar.model import SIZES, DiT, DiTConfig, flops, ladder, model_config, parameters

# arXiv 2212.09748, table 1 and its code: (depth, width, heads, latent side, 1e9 multiply-adds).
PUBLISHED = {
    "S/2": (12, 384, 6, 32, 6.06),
    "B/2": (12, 768, 12, 32, 23.01),
    "L/2": (24, 1024, 16, 32, 80.71),
    "XL/2": (28, 1152, 16, 32, 118.64),
    "XL/2 at 512": (28, 1152, 16, 64, 524.60),
}


def classic(depth, width, heads, side):
    return DiTConfig(
        depth=depth, width=width, heads=heads, patch=2, channels=4, rows=side, columns=side,
        classes=1000, classic=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_flops_are_twice_the_published_multiply_adds(name):
    *sizes, published = PUBLISHED[name]
    assert flops(classic(*sizes)) / 2e9 == pytest.approx(published, rel=2e-3)


def test_classic_xl2_has_the_published_parameters():
    # The 2023 code also learns a variance (as many outputs again) and stores its positions.
    variance_head, positions = 16 * 1152 + 16, 256 * 1152
    count = parameters(classic(28, 1152, 16, 32))
    assert count + variance_head + positions == 675_129_632


@pytest.mark.parametrize("config", [
    ladder(3, shape=(1, 8, 8), patch=2, width_per_depth=16, head_width=16),
    ladder("dit-120m", classes=10),
    classic(12, 384, 6, 32),
])  # fmt: skip
def test_flops_equal_torchs_counter(config):
    # On the meta device: on a CPU torch's counter leaves attention out.
    with torch.device("meta"):
        network = DiT(config)
        images = torch.empty(2, config.channels, config.rows, config.columns)
        with FlopCounterMode(display=False) as counter:
            network(images, torch.empty(2))
    assert counter.get_total_flops() == 2 * flops(config)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_what_their_names_say(name):
    number, unit = float(name[4:-1]), {"m": 1e6, "b": 1e9}[name[-1]]
    assert parameters(ladder(name, classes=1000)) == pytest.approx(number * unit, rel=0.015)


def test_the_study_and_the_function_build_the_same_network():
    model = ModelConfig(patch=2, width_per_depth=16, head_width=16, class_drop=0.1)
    built = model_config(model, LadderEntry(name="x", depth=2), (1, 8, 8), 10)
    same = ladder(2, shape=(1, 8, 8), patch=2, width_per_depth=16, head_width=16, classes=10)
    assert built == same


def test_weights_depend_on_the_generator_alone():
    config = ladder(2, shape=(1, 8, 8), patch=2, width_per_depth=16, head_width=16)
    a, b, c = (
        DiT(config).initialise(torch.Generator().manual_seed(seed)).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["blocks.0.qkv.weight"], c["blocks.0.qkv.weight"])


@pytest.mark.parametrize("classic_block", [False, True])
def test_every_block_starts_as_the_identity_and_every_weight_learns(classic_block):
    config = ladder(
        2, shape=(3, 8, 8), patch=2, width_per_depth=16, head_width=16, classes=3,
        classic=classic_block,
    )  # fmt: skip
    network = DiT(config).initialise(torch.Generator().manual_seed(0))
    x, c_noise = torch.randn(4, 3, 8, 8), torch.randn(4)
    assert torch.equal(network(x, c_noise), torch.zeros_like(x))
    with torch.no_grad():  # off the zeros of adaLN-Zero, where most gradients are zero
        for weight in network.parameters():
            weight += 0.1 * torch.randn_like(weight)
    network(x, c_noise, torch.tensor([0, 1, 2, 3])).square().mean().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in network.parameters())


def test_no_label_is_the_last_row():
    config = ladder(1, shape=(1, 4, 4), patch=2, width_per_depth=16, head_width=16, classes=3)
    network = DiT(config).initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1
            weight[-1] *= 2
    x, c_noise = torch.randn(2, 1, 4, 4), torch.randn(2)
    assert torch.equal(network(x, c_noise), network(x, c_noise, torch.tensor([3, 3])))
    assert not torch.equal(network(x, c_noise), network(x, c_noise, torch.tensor([0, 1])))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: ladder("dit-120"), "did you mean 'dit-120m'"),
    (lambda: ladder(3, width=100), "head_width = 64"),
    (lambda: ladder(1, shape=(3, 30, 32)), "patch = 4"),
])  # fmt: skip
def test_misfits_are_named(call, words):
    with pytest.raises(JstarError, match=words):
        call()


def test_q_and_k_are_normed_outside_of_autocast(monkeypatch):
    """CUDA's autocast casts a norm to float32; a CPU's does not, so it is looked at from within."""
    seen, plain = [], F.rms_norm

    def watched(x, *given, **more):
        seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return plain(x, *given, **more)

    monkeypatch.setattr(F, "rms_norm", watched)
    config = ladder(1, shape=(1, 8, 8), patch=2, width=64)
    network = DiT(config).initialise(torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.zeros(2, 1, 8, 8), torch.ones(2))
    assert [autocast for kind, autocast in seen if kind == torch.bfloat16] == [False]
    assert torch.float32 in [kind for kind, _ in seen]  # the residual stream's norms
