"""Adapters are made of parts that say what they claim; tables, one-hot labels, time conventions."""

import numpy as np
import pytest
import torch
from torch import nn

from jstar.diagnose import discrete, from_diffusers, preconditioned
from jstar.diagnose.adapters import ddpm_sigmas
from jstar.errors import JstarError
from jstar.noise import PROCESSES, process

X, SIGMA = torch.randn(5, 1, 4, 4), torch.tensor([0.03, 0.2, 1.0, 5.0, 40.0])


def network(x, time, *labels):
    return torch.tanh(x) * (1 + 0.1 * torch.sin(time))[:, None, None, None]


@pytest.mark.parametrize("name", PROCESSES)
def test_the_claimed_reading_is_the_process(name):
    options = {"sigma_data": 0.7} if "edm" in name else {}
    adapter, proc = preconditioned(network, name, **options), process(name, **options)
    torch.testing.assert_close(
        adapter.denoise(X, SIGMA, None), proc.denoise(network, X, SIGMA), rtol=2e-4, atol=2e-5
    )


def test_a_table_of_steps_takes_whole_ones():
    table = nn.Embedding(1000, 16)
    told = []

    def teaching(x, step):
        told.append(step)
        return x + table(step).reshape(-1, 1, 4, 4)

    with pytest.raises((RuntimeError, IndexError)):
        discrete(teaching, ddpm_sigmas()).denoise(X, SIGMA, None)
    discrete(teaching, ddpm_sigmas(), rounded=True).denoise(X, SIGMA, None)
    sigma_T = ddpm_sigmas()
    nearest = [int(np.abs(np.log(sigma_T / s)).argmin()) for s in SIGMA.numpy()]
    assert told[-1].dtype == torch.int64
    assert told[-1].tolist() == nearest


def test_one_hot_labels_are_made_where_they_are_wanted():
    told = []

    def edm_like(x, c_noise, labels):
        told.append(labels)
        return x

    adapter = preconditioned(edm_like, "edm", one_hot=3)
    adapter.denoise(X, SIGMA, torch.tensor([0, 2, 1, 1, 0]))
    assert told[0].tolist()[1] == [0.0, 0.0, 1.0]
    with pytest.raises(JstarError, match="one_hot = 3: the label 3"):
        adapter.denoise(X, SIGMA, torch.tensor([0, 2, 1, 1, 3]))


def test_steps_without_signal_are_not_left_out_without_a_word():
    sigma_T = ddpm_sigmas()
    assert discrete(network, sigma_T).notes == ()
    (note,) = discrete(network, np.append(sigma_T, np.inf)).notes
    assert "zero terminal SNR" in note
    assert "the last 1 of 1001 time steps" in note


class Recording(nn.Module):
    """A flow-matching transformer of diffusers; it returns ones and keeps its time."""

    def forward(self, x, timestep, return_dict=True):
        self.time = timestep
        return (torch.ones_like(x),)


@pytest.mark.parametrize(
    ("kind", "time", "sign"),
    [
        ("SanaTransformer2DModel", 500.0, 1),
        ("AuraFlowTransformer2DModel", 0.5, 1),
        ("Lumina2Transformer2DModel", 0.5, -1),
    ],
)
def test_known_transformers_are_told_time_as_their_pipelines_tell_it(kind, time, sign):
    """At sigma = 3 t is 0.75: 750 steps, 0.75, or 1 - 0.75 with the opposite velocity."""
    model = type(kind, (Recording,), {"config": {}})()
    scheduler = type("FlowMatchEulerDiscreteScheduler", (), {})()
    scheduler.config = {"num_train_timesteps": 1000}
    adapter = from_diffusers(model, scheduler)
    out = adapter.denoise(X[:1], torch.tensor([3.0]), None)
    expected = {500.0: 750.0, 0.5: 0.75 if sign > 0 else 0.25}[time]
    assert model.time.item() == pytest.approx(expected)
    torch.testing.assert_close(out, (X[:1] - 3.0 * sign) / 4.0)


def test_flow_prediction_is_flow_matching_whatever_tables_the_scheduler_has():
    model = type("SomeTransformer", (Recording,), {"config": {}})()
    scheduler = type("UniPCMultistepScheduler", (), {"alphas_cumprod": torch.linspace(0.9, 0.1, 9)})
    scheduler.config = {"num_train_timesteps": 1000, "prediction_type": "flow_prediction"}
    out = from_diffusers(model, scheduler()).denoise(X[:1], torch.tensor([1.0]), None)
    assert model.time.item() == pytest.approx(500.0)
    torch.testing.assert_close(out, (X[:1] - 1.0) / 2.0)
