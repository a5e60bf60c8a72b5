"""The hand-written gradients against autograd's, in value and gradient."""

import pytest
import torch

from jstar.model import DiT, fused, ladder
from jstar.model.dit import norm


def test_gradients_of_the_modulated_norm():
    x, shift, scale = (torch.randn(s, dtype=torch.float64, requires_grad=True)
                       for s in ((3, 4, 8), (3, 1, 8), (3, 1, 8)))  # fmt: skip
    torch.autograd.gradcheck(lambda *a: fused.modulated_norm(*a, 1e-6), (x, shift, scale))
    expected = torch.addcmul(shift, norm(x, classic=False), 1 + scale)
    torch.testing.assert_close(fused.modulated_norm(x, shift, scale, 1e-6), expected)


def test_gradients_of_the_attention():
    qkv = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(2, 1, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda *a: fused.small_attention(*a, 1e-6), (qkv, scale))


@pytest.mark.parametrize("depth", [1, 3])
def test_a_network_is_the_same_with_and_without(depth, monkeypatch):
    config = ladder(depth, shape=(1, 8, 8), patch=2, width_per_depth=16, head_width=16)
    network = DiT(config).initialise(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    x, c_noise = torch.randn(4, 1, 8, 8, generator=generator), torch.zeros(4)
    results = []
    for used in (True, False):
        monkeypatch.setattr(fused, "pays_off", lambda x, used=used: used)
        network.zero_grad()
        out = network(x, c_noise)
        out.square().mean().backward()
        results.append([out, *(w.grad.clone() for w in network.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
