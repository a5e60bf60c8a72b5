"""A small part of benchmarks/diagnose_adapters.py: a real weak network, trained here in seconds."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from sklearn.datasets import load_digits

from jstar.data import open_dataset
from jstar.diagnose import Adapter, discrete, preconditioned
from jstar.diagnose.images import prepared_folder, write_images
from jstar.diagnose.readings import COSINE, TABLES, ddpm_sigmas
from jstar.diagnose.sample import take_sample
from jstar.diagnose.solver import identify

STEPS = 250


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """8 x 8 digits as pixels, and the draws that adapters are identified on."""
    pixels = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[:, None]
    folder = tmp_path_factory.mktemp("digits")
    data = open_dataset(
        prepared_folder(write_images(pixels, None, folder / "d.npz"), folder / "data")
    )
    return data, take_sample(data, conditional=False)


@pytest.fixture(scope="module")
def network(digits):
    """A U-Net that predicts epsilon at DDPM's steps, of 250 training steps."""
    path = ROOT / "benchmarks" / "weak_networks.py"
    spec = importlib.util.spec_from_file_location("weak_networks", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    net = module.UNet(width=16)
    x0 = torch.from_numpy(digits[0].scaled(slice(0, 1500)))
    module.fit(net, module.KINDS["eps-unet"], x0, STEPS, lambda step: None)
    return net.eval()


def test_the_right_usage_is_not_accused(network, digits):
    right = discrete(network, ddpm_sigmas())
    assert identify(right, digits[1]).verdict == "right"
    by_hand = Adapter("by hand", right.denoise)
    assert identify(by_hand, digits[1]).verdict == "right"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda n: discrete(n, ddpm_sigmas(), "v_prediction"), "predicts epsilon, not v"),
        (lambda n: discrete(lambda x, t: -n(x, t), ddpm_sigmas()), "sign of its output"),
        (lambda n: discrete(n, TABLES[COSINE]), "DDPM's linear schedule"),
        (lambda n: discrete(lambda x, t: n(x, 999 - t), ddpm_sigmas()), "reversed"),
        (lambda n: preconditioned(n, "fm"), "predicts epsilon, not velocity"),
    ],
)
def test_a_wrong_usage_is_named(wrong, words, network, digits):
    found = identify(wrong(network), digits[1])
    assert found.verdict == "wrong"
    assert words in found.problems[0]
