"""Denoisers made of snapshots."""

import pytest
import torch

from jstar.data import open_dataset
from jstar.errors import JstarError
from jstar.train.snapshots import list_snapshots, load_denoiser, load_network


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


def test_an_average_that_is_not_stored_is_that_of_a_run_that_stores_it(run_tiny):
    """The same training, its averages tracked by the one and put together by the other."""
    spaced = {"snapshots": 12, "first_snapshot": 640}
    _, other = run_tiny("other", train={"ema": [0.15], **spaced})
    _, folder = run_tiny("run", train={"ema": [0.05, 0.1, 0.2], **spaced})
    last = list_snapshots(folder / "out")[-1].index
    truth = dict(load_network(other / "out", last, 0.15).named_parameters())
    near = dict(load_network(folder / "out", last, 0.2).named_parameters())
    for name, made in load_network(folder / "out", last, 0.15).named_parameters():
        assert made.dtype == torch.float32
        distance = (made - truth[name]).norm()
        assert distance <= 0.002 * truth[name].norm()
        assert distance < 0.05 * (near[name] - truth[name]).norm()
    with pytest.raises(JstarError, match=r"snapshot 0: .* 0.15 .* 0.05, 0.1, 0.2 at 1 snapshots"):
        load_network(folder / "out", 0, 0.15)
    (folder / "out/snapshots/003.safetensors").unlink()
    load_network(folder / "out", last, 0.2)
    with pytest.raises(JstarError, match="003.safetensors: is missing"):
        load_network(folder / "out", last, 0.15)


def test_what_is_not_there_is_named(run_tiny, tmp_path):
    _, folder = run_tiny()
    with pytest.raises(JstarError, match=r"length 0.2 is not stored.*possible are 0.09"):
        load_denoiser(folder / "out", 5, 0.2)
    with pytest.raises(JstarError, match="has no snapshot 99, allowed are 0 to 5"):
        load_denoiser(folder / "out", 99, 0.1)
    with pytest.raises(JstarError, match="not a finished run"):
        list_snapshots(tmp_path)
