"""A small part of benchmarks/diagnose_adapters.py: a real weak network, its weights beside this."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL_DATA, ROOT

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.diagnose import Adapter, discrete
from jstar.diagnose.readings import COSINE, TABLES, ddpm_sigmas
from jstar.diagnose.sample import take_sample
from jstar.diagnose.solver import identify

IMAGES = REAL_DATA / "fashion-mnist-train.npz"
pytestmark = pytest.mark.skipif(not IMAGES.is_file(), reason=f"{IMAGES} is not there")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Draws of its training images."""
    folder = tmp_path_factory.mktemp("images")
    config = {"name": "first", "source": "npz", "path": str(IMAGES), "limit": 4000}
    prepare(DatasetConfig.checked(config, "test"), folder / "data")
    return take_sample(open_dataset(folder / "data"), conditional=False)


@pytest.fixture(scope="module")
def network():
    """`eps-unet` of benchmarks/weak_networks.py: epsilon at DDPM's steps, 1,200 training steps."""
    spec = importlib.util.spec_from_file_location(
        "weak_networks", ROOT / "benchmarks" / "weak_networks.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    net = module.UNet()
    with np.load(Path(__file__).with_name("eps-unet.npz")) as stored:
        net.load_state_dict({k: torch.from_numpy(stored[k]).float() for k in stored.files})
    return net.eval()


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_right_usage_is_not_accused(by_hand, network, sample):
    right = discrete(network, ddpm_sigmas())
    found = identify(Adapter("by hand", right.denoise) if by_hand else right, sample)
    assert (found.verdict, found.problems) == ("right", ())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda n: discrete(n, ddpm_sigmas(), "v_prediction"), "predicts epsilon, not v"),
        (lambda n: discrete(n, TABLES[COSINE]), "DDPM's linear schedule"),
        (lambda n: discrete(lambda x, t: n(x, 999 - t), ddpm_sigmas()), "reversed"),
    ],
)
def test_a_wrong_usage_is_named(wrong, words, network, sample):
    found = identify(wrong(network), sample)
    assert found.verdict == "wrong"
    assert words in found.problems[0]
