"""Adapters that are wrong are found and named; one that is right is left alone."""

import pytest
import torch

from jstar.diagnose import Adapter, preconditioned
from jstar.diagnose.misreadings import check_adapter
from jstar.errors import JstarError

SIGMA, SHAPE = 0.5, (-1, 1, 1, 1)


def problems(denoise, truth):
    return check_adapter(Adapter("under test", denoise), truth)


def test_a_right_adapter_is_left_alone(exact, truth):
    assert problems(exact, truth) == []


def test_an_untrained_network_is_weak_but_not_called_wrong(truth):
    network = preconditioned(lambda x, c: torch.zeros_like(x), "edm")
    assert check_adapter(network, truth) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda d: lambda x, s, y: d(x, torch.full_like(s, SIGMA), y), ["sigma is ignored"]),
        # the data of the network: twice ours, half of ours, 0..255, 0..1
        (lambda d: lambda x, s, y: 2 * d(x / 2, s / 2, y), ["data must be multiplied by 2 "]),
        (lambda d: lambda x, s, y: d(2 * x, 2 * s, y) / 2, ["multiplied by 1/2 "]),
        (
            lambda d: lambda x, s, y: 127.5 * d(x / 127.5 - 1, s / 127.5, y) + 127.5,
            ["data must be multiplied by 127.5", "0..255"],
        ),
        (
            lambda d: lambda x, s, y: (d(127.5 * x + 127.5, 127.5 * s, y) - 127.5) / 127.5,
            ["data must be multiplied by 1/127.5", "to -1..1"],
        ),
        (
            lambda d: lambda x, s, y: (d(2 * x - 1, 2 * s, y) + 1) / 2,
            ["from -1..1 to 0..1"],
        ),
        # only the output
        (lambda d: lambda x, s, y: 2 * d(x, s, y), ["output is multiplied by 2"]),
        (lambda d: lambda x, s, y: 127.5 * d(x, s, y) + 127.5, ["output is multiplied by 127.5"]),
        # another input or target
        (
            lambda d: lambda x, s, y: d(x * (1 + s.reshape(SHAPE) ** 2).sqrt(), s, y),
            ["expects x / sqrt(1 + sigma^2)"],
        ),
        (lambda d: lambda x, s, y: (x - d(x, s, y)) / s.reshape(SHAPE), ["returns the noise"]),
        (lambda d: lambda x, s, y: (d(x, s, y) - x) / s.reshape(SHAPE) ** 2, ["the score"]),
        (
            lambda d: lambda x, s, y: (x - d(x, s, y)) / s.reshape(SHAPE) - d(x, s, y),
            ["returns the velocity"],
        ),
        (lambda d: lambda x, s, y: d(x, s, y) + 0.1 * torch.randn_like(x), ["dropout"]),
        (
            lambda d: lambda x, s, y: d(x, s, y) + 0.1 * x.mean(0) / s.reshape(SHAPE),
            ["other images of the batch"],
        ),
    ],
)
def test_a_wrong_adapter_is_named_in_one_sentence(wrong, words, exact, truth):
    found = problems(wrong(exact), truth)
    assert len(found) == 1, found
    for word in words:
        assert word in found[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x, s, y: x[:, :, :2], "returned shape"),
        (lambda x, s, y: x.mean(), "returned shape"),
        (lambda x, s, y: x * float("nan"), "not finite"),
        (lambda x, s, y: x.numpy(), "returned ndarray, it must return a tensor"),
        (lambda x, s, y: x @ torch.ones(7, 7), "ended with RuntimeError"),
        (lambda x, s: x, "ended with TypeError"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused(wrong, words, truth):
    with pytest.raises(JstarError, match=words) as caught:
        problems(wrong, truth)
    assert "\n" not in str(caught.value)
