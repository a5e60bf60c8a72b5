"""Data, noise scale and noise are a function of (seed, image index); targets are exact."""

import dataclasses
import time
from threading import current_thread, main_thread

import numpy as np
import pytest
import torch

from jstar.data import open_dataset
from jstar.noise import PROCESSES, process
from jstar.train.noise_law import TrainingNoiseLaw
from jstar.train.objective import noise_scale
from jstar.train.stream import NOISE, Stream


def rows(chunk):
    """Everything about each image, one row an image."""
    parts = (chunk.x_in, chunk.target, chunk.c_noise, chunk.weight, chunk.to_x0, chunk.log_sigma)
    return torch.cat([part.flatten(0, 1).reshape(part.shape[:2].numel(), -1) for part in parts], 1)


def stream(digits, batch=48, seed=3, name="edm", **options):
    law = TrainingNoiseLaw(process(name))
    return Stream(open_dataset(digits), law, seed, batch=batch, **options)


def test_batches_ranks_and_starts_do_not_matter(digits):
    # 48 does not divide the noise block of 32, 20 steps of it cross an epoch of 256 images.
    whole = rows(stream(digits).chunk(0, 20))
    other_batch = rows(stream(digits, batch=96).chunk(0, 10))
    torch.testing.assert_close(whole, other_batch, rtol=1e-6, atol=1e-6)
    late = rows(stream(digits).chunk(7, 20))
    torch.testing.assert_close(whole[7 * 48 :], late, rtol=1e-6, atol=1e-6)
    ranks = [rows(stream(digits, rank=r, world=3).chunk(0, 20)).view(20, 16, -1) for r in range(3)]
    torch.testing.assert_close(whole, torch.cat(ranks, 1).flatten(0, 1), rtol=1e-6, atol=1e-6)


def test_every_epoch_shows_every_image_once_in_another_order(digits):
    index = stream(digits).data_index(np.arange(512)).reshape(2, 256)
    assert (np.sort(index, axis=1) == np.arange(256)).all()
    assert not np.array_equal(index[0], index[1])
    assert not np.array_equal(index[0], stream(digits, seed=4).data_index(np.arange(256)))


@pytest.mark.parametrize("name", PROCESSES)
def test_losses_convert_to_x0_exactly(name, digits):
    """c_out^2 |F - target|^2 is |D - x0|^2, with D from the process itself."""
    proc, source = process(name), stream(digits, name=name)
    chunk = source.chunk(0, 4)
    index = np.arange(4 * 48)
    x0 = source._images(source.data_index(index)).double()
    sigma = chunk.log_sigma.flatten().double().exp()
    x = x0 + sigma.view(-1, 1, 1, 1) * source._noise(index, NOISE).double()
    out = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    denoised = proc.denoise(lambda x_in, c_noise: out, x, sigma)
    expected = (denoised - x0).square().flatten(1).mean(1)
    error = (out - chunk.target.flatten(0, 1)).square().flatten(1).mean(1)
    torch.testing.assert_close(
        error * chunk.to_x0.flatten(), expected, rtol=1e-4, atol=1e-9, check_dtype=False
    )
    torch.testing.assert_close(
        error * chunk.weight.flatten(), proc.weight(sigma) * expected, rtol=1e-4, atol=1e-9,
        check_dtype=False,
    )  # fmt: skip
    torch.testing.assert_close(chunk.x_in.flatten(0, 1), (proc.c_in(sigma).view(-1, 1, 1, 1) * x),
                               rtol=1e-4, atol=1e-4, check_dtype=False)  # fmt: skip


@pytest.mark.parametrize("name", PROCESSES)
def test_the_noise_embedding_meets_the_same_span_in_every_process(name):
    proc = process(name)
    u = torch.linspace(0.001, 0.999, 1001, dtype=torch.float64)
    value = proc.c_noise(proc.law.quantile(u)) * noise_scale(proc)
    assert float(value.max() - value.min()) == pytest.approx(100, rel=0.01)


def test_labels_are_dropped_and_images_mirrored_at_their_rates(digits):
    source = stream(digits, class_drop=0.25)
    labels = source.chunk(0, 100).labels.flatten()
    true = torch.from_numpy(source.dataset.labels_N[source.data_index(np.arange(4800))])
    assert float((labels == 10).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(labels[labels != 10], true[labels != 10])
    card = dataclasses.replace(source.dataset.card, mirror=True)
    source.dataset = dataclasses.replace(source.dataset, card=card)
    plain = source._images(source.data_index(np.arange(480)))
    shown, small = clean(source, 10)
    same = torch.isclose(shown, plain, atol=1e-3).flatten(1).all(1)
    flipped = torch.isclose(shown, plain.flip(-1), atol=1e-3).flatten(1).all(1)
    assert bool((same | flipped)[small].all())
    assert float(flipped[small].float().mean()) == pytest.approx(0.5, abs=0.08)


def clean(source, steps):
    """x0 of the first steps, from the network's input; and where float32 has kept it."""
    chunk = source.chunk(0, steps)
    sigma = chunk.log_sigma.flatten().exp().view(-1, 1, 1, 1)
    noise = source._noise(np.arange(len(sigma)), NOISE)
    shown = chunk.x_in.flatten(0, 1) / source.noise_law.process.c_in(sigma) - sigma * noise
    return shown, sigma.flatten() < 5


def test_a_sampled_latent_is_drawn_anew_at_every_visit(digits):
    dataset = open_dataset(digits)
    stds = np.random.default_rng(0).uniform(1, 3, dataset.images_NCHW.shape)
    dataset = dataclasses.replace(dataset, stds_NCHW=stds.astype(np.float16))
    source = Stream(dataset, TrainingNoiseLaw(process("edm")), 3, batch=48)
    index = np.arange(960)
    data = source.data_index(index)
    shown, small = clean(source, 20)
    eps = (shown - source._images(data)) / torch.from_numpy(source.dataset.scaled_stds(data))
    kept = eps[small]
    assert float(kept.mean()) == pytest.approx(0, abs=0.02)
    assert float(kept.square().mean()) == pytest.approx(1, abs=0.03)
    noise = source._noise(index, NOISE)[small]
    assert float((kept * noise).mean()) == pytest.approx(0, abs=0.02)
    visits = [np.flatnonzero(data == point) for point in range(256)]
    pairs = [v[:2] for v in visits if len(v) > 1 and small[v[:2]].all()]
    first, second = (eps[[pair[k] for pair in pairs]] for k in (0, 1))
    assert float((first * second).mean()) == pytest.approx(0, abs=0.03)
    late = rows(source.chunk(7, 20))
    torch.testing.assert_close(rows(source.chunk(0, 20))[7 * 48 :], late, rtol=1e-6, atol=1e-6)


def test_a_dataset_too_large_for_memory_is_read_ahead(digits, monkeypatch):
    kept = stream(digits)
    monkeypatch.setattr("jstar.train.rows.AT_HAND_BYTES", 0)
    source = stream(digits)
    read, here = source.images._read, []
    monkeypatch.setattr(source.images, "_read", lambda i: here.append(current_thread()) or read(i))
    # Steps 0-9, 9-20 as announced; then others than announced, which must be read after all.
    for start, stop, then, read_by_then in ((0, 9, 20, 2), (9, 20, 30, 3), (25, 31, None, 4)):
        torch.testing.assert_close(
            rows(source.chunk(start, stop, then)), rows(kept.chunk(start, stop)), rtol=0, atol=0
        )
        deadline = time.monotonic() + 60
        while len(here) < read_by_then and time.monotonic() < deadline:  # one not begun is left
            time.sleep(0.01)
    ahead = [thread is not main_thread() for thread in here]
    assert sorted(ahead) == [False, False, True, True]
