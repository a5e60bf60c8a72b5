"""One prompt's embedding for all images reaches the network; one an image is refused."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import jstar
from jstar.diagnose import from_diffusers, preconditioned
from jstar.diagnose.prompts import open_prompt
from jstar.errors import JstarError
from jstar.noise import process

FEW = {"sigma_min": 0.02, "sigma_max": 20, "sigmas": 4, "queries": 32}
PROMPT = np.random.default_rng(1).normal(size=(1, 3, 5)).astype("float32")


def listening(exact):
    """Right only if every image of the batch is given PROMPT."""

    def denoise(x, sigma, prompt):
        assert prompt.shape == (len(x), 3, 5)
        return exact(x, sigma) + (prompt - torch.from_numpy(PROMPT)).abs().amax()

    return denoise


def test_a_function_is_given_the_prompt(points, exact, tmp_path):
    np.save(tmp_path / "p.npy", PROMPT)
    images = points.transpose(0, 3, 1, 2)
    found = jstar.diagnose(listening(exact), images, prompt=tmp_path / "p.npy", **FEW)
    assert (found.to_frame()["gap"] < 1e-8).all()
    assert found.adapter.verdict == "right"
    assert "Warning" not in found.summary()
    other = jstar.diagnose(listening(exact), images, prompt=PROMPT + 1, **FEW)
    assert other.to_frame()["gap"].to_numpy() == pytest.approx(1.0, rel=1e-3)


def test_a_network_is_given_it_in_whatever_way_it_is_read(points, exact):
    proc, asked = process("edm"), listening(exact)

    def network(x, time, prompt):
        sigma = (4 * time).exp()
        s = sigma[:, None, None, None]
        x = x / proc.c_in(s)
        return (asked(x, sigma, prompt) - proc.c_skip(s) * x) / proc.c_out(s)

    images = points.transpose(0, 3, 1, 2)
    found = jstar.diagnose(preconditioned(network, "edm"), images, prompt=PROMPT, **FEW)
    assert (found.to_frame()["gap"] < 1e-6).all()
    assert found.adapter.verdict == "right"
    wrong = jstar.diagnose(preconditioned(network, "v"), images, prompt=PROMPT, **FEW)
    assert wrong.adapter.verdict == "wrong"  # the search calls the network with the prompt, too
    assert "the network predicts EDM's F, not v" in wrong.summary()


def test_a_prompt_that_is_ignored_is_named(points, exact):
    found = jstar.diagnose(exact, points.transpose(0, 3, 1, 2), prompt=PROMPT, **FEW)
    assert "Warning: the prompt is ignored" in found.summary()


class Attending(torch.nn.Module):
    """Called as a UNet2DConditionModel is."""

    config: ClassVar = {}

    def forward(self, sample, timestep, encoder_hidden_states, class_labels=None, return_dict=True):
        assert class_labels is None
        told = encoder_hidden_states.flatten(1) @ torch.arange(15.0)
        return (sample * told.reshape(-1, 1, 1, 1) + timestep.reshape(-1, 1, 1, 1),)


class DDPMScheduler:
    """Its noise schedule."""

    config: ClassVar = {"prediction_type": "epsilon"}
    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


def test_a_diffusers_model_is_given_it_as_its_hidden_states():
    adapter = from_diffusers(Attending(), DDPMScheduler())
    told = open_prompt(PROMPT).told_to(adapter, labels=False)
    by_hand = from_diffusers(
        Attending(), DDPMScheduler(), encoder_hidden_states=torch.from_numpy(PROMPT)
    )
    x, sigma = torch.randn(2, 1, 4, 4), torch.full((2,), 1.5)
    torch.testing.assert_close(told.denoise(x, sigma, None), by_hand.denoise(x, sigma, None))
    assert told.parts is not None
    time = torch.zeros(2)
    torch.testing.assert_close(told.parts.network(x, time), by_hand.parts.network(x, time))


def test_all_kinds_of_files_are_the_same_prompt(tmp_path):
    half = torch.from_numpy(PROMPT).bfloat16()
    np.savez(tmp_path / "p.npz", any_name=half.float().numpy())
    save_file({"any_name": half}, tmp_path / "p.safetensors")
    for name in ("p.npz", "p.safetensors"):
        torch.testing.assert_close(open_prompt(tmp_path / name).embedding, half.float())
    assert open_prompt(PROMPT[0, 0]).embedding.shape == (1, 5)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (np.zeros((64, 3, 5), "float32"), r"\(64, 3, 5\).*own prompt J\* is 0.*classes"),
        (np.zeros((3, 5), "float32"), r"allowed is one embedding for all images"),
        (np.zeros((1, 5), "int64"), "must hold finite floats, found are int64"),
        (np.full((1, 5), np.nan), "finite floats"),
        ("none.npy", "none.npy cannot be read"),
        ("p.txt", "must be one of .npy, .npz, .safetensors"),
    ],
)
def test_refusals(prompt, words):
    with pytest.raises(JstarError, match=words):
        open_prompt(prompt)


def test_several_arrays_and_labels_beside_it_are_refused(points, exact, tmp_path):
    np.savez(tmp_path / "two.npz", one=PROMPT, other=PROMPT)
    with pytest.raises(JstarError, match="holds one, other, allowed is one array"):
        open_prompt(tmp_path / "two.npz")
    with pytest.raises(JstarError, match="labels or a prompt, not both"):
        jstar.diagnose(
            exact, points.transpose(0, 3, 1, 2), labels=np.arange(64) % 2, prompt=PROMPT, **FEW
        )
