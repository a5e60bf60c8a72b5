"""Adapters that are wrong are found and named; one that is right is left alone."""

import pytest
import torch

from jstar.diagnose import Adapter, discrete, preconditioned
from jstar.diagnose.first_call import first_call
from jstar.diagnose.readings import LINEAR, OF_PROCESS, ddpm_sigmas, inside, table_reading
from jstar.diagnose.solver import identify
from jstar.errors import JstarError

SIGMA, SHAPE = 5.0, (-1, 1, 1, 1)


def test_a_right_adapter_is_left_alone(exact, sample):
    found = identify(Adapter("under test", exact), sample)
    assert (found.verdict, found.problems) == ("right", ())


def test_an_untrained_network_is_weak_but_not_called_wrong(sample):
    found = identify(preconditioned(lambda x, c: torch.zeros_like(x), "vp"), sample)
    assert found.verdict == "unsure"
    assert "no other reading of the network fits" in found.problems[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda d: lambda x, s, y: d(x, torch.full_like(s, SIGMA), y), ["sigma is ignored"]),
        # the data of the network: twice ours, half of ours, 0..255, 0..1
        (lambda d: lambda x, s, y: 2 * d(x / 2, s / 2, y), ["its images are times 2,"]),
        (lambda d: lambda x, s, y: d(2 * x, 2 * s, y) / 2, ["its images are times 1/2,"]),
        (
            lambda d: lambda x, s, y: 127.5 * d(x / 127.5 - 1, s / 127.5, y) + 127.5,
            ["its images are 0..255,"],
        ),
        (
            lambda d: lambda x, s, y: (d(127.5 * x + 127.5, 127.5 * s, y) - 127.5) / 127.5,
            ["its images are times 1/127.5, less 1 (from 0..255 to -1..1)"],
        ),
        (
            lambda d: lambda x, s, y: (d(2 * x - 1, 2 * s, y) + 1) / 2,
            ["its images are 0..1"],
        ),
        # only the output
        (lambda d: lambda x, s, y: 2 * d(x, s, y), ["predicts 2 x0"]),
        (lambda d: lambda x, s, y: 127.5 * d(x, s, y) + 127.5, ["predicts x0 in 0..255"]),
        # another input or target
        (
            lambda d: lambda x, s, y: (x - d(x, s, y)) / s.reshape(SHAPE),
            ["predicts epsilon, not x0"],
        ),
        (
            lambda d: lambda x, s, y: (d(x, s, y) - x) / s.reshape(SHAPE) ** 2,
            ["predicts the score"],
        ),
        (
            lambda d: lambda x, s, y: (x - d(x, s, y)) / s.reshape(SHAPE) - d(x, s, y),
            ["predicts velocity eps - x0"],
        ),
        (lambda d: lambda x, s, y: d(x, s, y) + 0.1 * torch.randn_like(x), ["dropout"]),
        (
            lambda d: lambda x, s, y: d(x, s, y) + 0.1 * x.mean(0) / s.reshape(SHAPE),
            ["other images of the batch"],
        ),
    ],
)
def test_a_wrong_adapter_is_named_in_one_sentence(wrong, words, exact, sample):
    found = identify(Adapter("under test", wrong(exact)), sample)
    assert found.verdict == "wrong"
    assert len(found.problems) == 1
    for word in words:
        assert word in found.problems[0]


def test_the_number_that_only_edm_and_flow_networks_have_is_named(exact, sample):
    edm, flow = inside(exact, OF_PROCESS["edm"]), inside(exact, OF_PROCESS["fm"])
    shifted = preconditioned(lambda x, t: flow(x, 3 * t / (1 + 2 * t)), "fm")
    for right in (preconditioned(edm, "edm"), preconditioned(flow, "fm")):
        assert identify(right, sample).verdict == "right"
    found = identify(preconditioned(edm, "edm", sigma_data=1.0), sample)
    assert "wrong: its sigma_data is 0.5, not 1. Read so" in found.problems[0]
    found = identify(shifted, sample)
    assert "wrong: its time is sigma / (3 + sigma) (shift 1/3), from 0 to 1" in found.problems[0]


def test_data_of_zero_mean_and_unit_variance_for_a_network_of_pixels_are_named(exact, sample):
    m, s = sample.level, sample.spread
    wrong = Adapter("under test", lambda x, t, y: exact((x - m) / s, t / s, y) * s + m)
    found = identify(wrong, sample)
    assert found.verdict == "wrong"
    assert "its images are zero mean, unit variance turned to -1..1" in found.problems[0]


def test_a_step_too_late_is_no_accusation(exact, sample):
    network = inside(exact, table_reading("epsilon", LINEAR))
    found = identify(discrete(lambda x, t: network(x, t + 1), ddpm_sigmas()), sample)
    assert (found.verdict, found.problems) == ("right", ())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x, s, y: x[:, :, :2], "returned shape"),
        (lambda x, s, y: x.mean(), "returned shape"),
        (lambda x, s, y: x * float("nan"), "not finite"),
        (lambda x, s, y: x.numpy(), "returned ndarray, it must return a tensor"),
        (lambda x, s, y: x @ torch.ones(7, 7), "ended with RuntimeError"),
        (lambda x, s: x, "ended with TypeError"),
        (lambda x, s, y: x.long(), "returned torch.int64, it must return floats"),
        (
            lambda x, s, y: torch.nn.Embedding(9, 1)(s)[:, :, None, None] + x,
            "ended with RuntimeError.*discrete\\(..., rounded=True\\)",
        ),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused(wrong, words, points):
    images = points[:2].transpose(0, 3, 1, 2).astype("float32") / 127.5 - 1
    with pytest.raises(JstarError, match=words) as caught:
        first_call(Adapter("under test", wrong), images, None)
    assert "\n" not in str(caught.value)
