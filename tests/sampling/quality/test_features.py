"""Feature networks: the trained classifier, a TorchScript file, and the cached reference."""

import shutil

import numpy as np
import pytest
import torch

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.errors import JstarError
from jstar.records import MADE, SEAL, read_json, write_json
from jstar.sampling.quality.distances import feature_moments
from jstar.sampling.quality.features import quantised
from jstar.sampling.quality.reference import reference


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    prepare(DatasetConfig(name="digits", source="digits"), folder)
    return open_dataset(folder)


@pytest.fixture(scope="module")
def known(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return folder, reference(digits, "classifier", folder)


def test_the_classifier_knows_digits_it_never_saw(known):
    assert known[1].network.accuracy > 0.95


def test_its_features_are_of_order_one_and_tell_noise_from_digits(digits, known):
    network = known[1].network
    own = network(digits.scaled(slice(None)))
    assert np.square(own).mean() == pytest.approx(1, abs=0.1)
    assert own.shape == (1797, 64)
    np.testing.assert_allclose(known[1].moments.mean_F, own.mean(0), rtol=1e-4)
    np.testing.assert_allclose(known[1].moments.cov_FF, feature_moments(own).cov_FF, atol=1e-6)


def test_the_reference_is_made_once_and_read_back(digits, known):
    folder, first = known
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = reference(digits, "classifier", folder)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert again.network.name == first.network.name
    images = digits.scaled(slice(0, 50))
    np.testing.assert_array_equal(again.network(images), first.network(images))
    squares = np.square(digits.scaled(slice(None))).mean()
    assert again.second_moment == pytest.approx(float(squares), rel=1e-5)


def test_the_same_training_gives_the_same_network(digits, known, tmp_path):
    assert reference(digits, "classifier", tmp_path).network.name == known[1].network.name


class Pooled(torch.nn.Module):
    """Stands for Inception: uint8 RGB in, two features out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.float().mean(dim=(1, 2, 3)), x.float().amax(dim=(1, 2, 3))], 1)


def test_a_torchscript_file_sees_pixels(digits, tmp_path):
    file = tmp_path / "pooled.v2.pt"
    torch.jit.script(Pooled()).save(str(file))
    network = reference(digits, str(file), tmp_path / "reference").network
    stored = np.asarray(digits.images_NCHW[:7], dtype=np.float64)
    got = network(digits.scaled(slice(0, 7)))
    np.testing.assert_allclose(got[:, 0], stored.mean(axis=(1, 2, 3)), rtol=1e-5)
    assert network.name.startswith("pooled.v2-")
    assert (tmp_path / "reference" / "pooled.v2.json").is_file()  # as the workflow expects


class Asked(torch.nn.Module):
    """As NVIDIA's Inception file: probabilities, unless it is asked for the features."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        out = x.float().mean(dim=[2, 3])
        return out if return_features else torch.softmax(out, dim=1)


def test_a_network_that_must_be_asked_for_its_features_is_asked(digits, tmp_path):
    torch.jit.script(Asked()).save(str(tmp_path / "asked.pt"))
    network = reference(digits, str(tmp_path / "asked.pt"), tmp_path).network
    got = network(digits.scaled(slice(0, 3)))
    mean = np.asarray(digits.images_NCHW[:3], dtype=np.float64).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(got, np.repeat(mean[:, None], 3, axis=1), rtol=1e-5)


def test_refusals(digits, known, tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"not a network")
    with pytest.raises(JstarError, match=r"bad.pt: is no TorchScript file"):
        reference(digits, str(tmp_path / "bad.pt"), tmp_path)
    folder = shutil.copytree(known[0], tmp_path / "reference")
    (folder / "classifier.safetensors").write_bytes(b"cut")
    with pytest.raises(JstarError, match=r"classifier.safetensors: is damaged.*remove .*json"):
        reference(digits, "classifier", folder)
    facts = read_json(folder / "classifier.json")
    write_json(folder / "classifier.json", {k: facts[k] for k in facts if k not in (MADE, SEAL)})
    with pytest.raises(JstarError, match="is no classifier of 'digits'"):
        reference(digits, "classifier", folder)


def test_generated_images_are_rounded_like_stored_ones(digits):
    x = digits.scaled(slice(0, 20)).astype(np.float64)
    near = x + 0.4 * digits.card.scale
    np.testing.assert_allclose(quantised(digits, near), x, atol=1e-6)
    low, high = quantised(digits, np.array([[-50.0, 50.0]]))[0]
    assert low == pytest.approx((0 - digits.card.offset) * digits.card.scale)
    assert high == pytest.approx((255 - digits.card.offset) * digits.card.scale)
