"""A small dataset whose posterior mean is also computed independently, and its truth."""

import numpy as np
import pytest
import torch

from jstar.data import open_dataset
from jstar.diagnose.oracle_draws import DrawOptions, open_truth
from jstar.diagnose.sample import take_sample

DRAWS = DrawOptions(sigma_min=0.02, sigma_max=80, count=11, queries=64)


@pytest.fixture(scope="session")
def points():
    """64 images of 1x4x4, uint8, near one another: J* is above 0 at every noise scale used.

    They lie on a line in steps of one grey level, so 0.02 (2.5 levels) mixes neighbours.
    """
    direction = np.random.default_rng(0).integers(0, 2, size=(1, 4, 4, 1))
    level = 96 + np.arange(64)[:, None, None, None]
    return np.where(direction == 1, level, 255 - level).astype(np.uint8)


@pytest.fixture(scope="session")
def npz(points, tmp_path_factory):
    """The images as a file, with two classes."""
    path = tmp_path_factory.mktemp("images") / "line.npz"
    np.savez(path, images=points, labels=np.arange(64) % 2)
    return path


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Where the truth and the prepared images lie."""
    return tmp_path_factory.mktemp("truth")


@pytest.fixture(scope="session")
def truth(npz, kept):
    """Its truth, made once."""
    return open_truth(npz, kept / "optimal", prepared=kept / "data", conditional=False, draws=DRAWS)


@pytest.fixture(scope="session")
def sample(truth, kept):
    """The draws that adapters are identified on."""
    return take_sample(open_dataset(kept / "data"), conditional=False)


@pytest.fixture(scope="session")
def exact(points):
    """D*(x, sigma) by plain float64 sums over the points: no code of the optimal room."""
    x_N = torch.from_numpy(points).double().permute(0, 3, 1, 2) / 127.5 - 1

    def denoise(x, sigma, labels=None):
        flat, data = x.double().flatten(1), x_N.flatten(1)
        distance = torch.cdist(flat, data, compute_mode="donot_use_mm_for_euclid_dist").square()
        weight = torch.softmax(-distance / (2 * sigma.double()[:, None] ** 2), dim=1)
        return (weight @ data).reshape(x.shape).to(x.dtype)

    return denoise
