"""Denoisers made of snapshots."""

import pytest
import torch

from jstar.data import open_dataset
from jstar.errors import JstarError
from jstar.train.snapshots import list_snapshots, load_denoiser


def error(denoiser, digits, sigma):
    x0 = torch.from_numpy(open_dataset(digits).scaled(slice(None)))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    return (denoiser(x0 + sigma * noise, sigma) - x0).square().mean().item()


def test_a_trained_snapshot_denoises_better_than_the_first(run_tiny, digits):
    _, folder = run_tiny(model="d2", train={"ema": [0.05, 0.2]})
    first, last = list_snapshots(folder / "out")[0], list_snapshots(folder / "out")[-1]
    for sigma in (0.3, 1.0):
        for ema in (0.05, 0.2):
            early = error(load_denoiser(folder / "out", first.index, ema), digits, sigma)
            late = error(load_denoiser(folder / "out", last.index, ema), digits, sigma)
            assert late < 0.8 * early


def test_sigma_may_be_a_number_or_one_an_image(run_tiny):
    _, folder = run_tiny()
    denoiser = load_denoiser(folder / "out", 0, 0.1)
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(denoiser(x, 0.5), denoiser(x, torch.full((3,), 0.5)))


def test_what_is_not_there_is_named(run_tiny, tmp_path):
    _, folder = run_tiny()
    with pytest.raises(JstarError, match=r"no EMA of length 0.3, found are 0.1"):
        load_denoiser(folder / "out", 0, 0.3)
    with pytest.raises(JstarError, match="cannot be read"):
        load_denoiser(folder / "out", 99, 0.1)
    with pytest.raises(JstarError, match="not a finished run"):
        list_snapshots(tmp_path)
