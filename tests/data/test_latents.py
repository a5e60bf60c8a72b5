"""Latents: scaled by channel, kept with their standard deviation, sampled by (seed, draw)."""

import sys

import formats
import numpy as np
import pytest

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.check import source_shape
from jstar.data.sources.latents import EDM2_SCALING
from jstar.errors import JstarError

COUNT, CHANNELS, SIDE = 9, 4, 5


@pytest.fixture
def raw():
    """Mean and standard deviation float32 [N, C, H, W], as EDM2's VAE gives them."""
    rng = np.random.default_rng(0)
    shape = (COUNT, CHANNELS, SIDE, SIDE)
    mean = np.array(EDM2_SCALING.mean)[:, None, None]
    std = np.array(EDM2_SCALING.std)[:, None, None]
    means = (mean + std * rng.standard_normal(shape)).astype(np.float32)
    return means, rng.uniform(0.01, 0.5, shape).astype(np.float32)


@pytest.fixture
def edm2(tmp_path, raw):
    both = np.concatenate(raw, axis=1)
    files = {f"00000/img-mean-std-{n:08d}.npy": formats.npy_bytes(both[n]) for n in range(COUNT)}
    path = formats.write_edm2(tmp_path / "latents.zip", files, np.arange(COUNT) % 3)
    return DatasetConfig(name="toy", source="edm2", path=str(path), holdout=2)


def test_edm2_latents_are_scaled_as_edm2_scales_them(tmp_path, raw, edm2):
    assert source_shape(edm2) == (COUNT, CHANNELS, SIDE, SIDE)
    card = prepare(edm2, tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    kept = np.setdiff1d(np.arange(COUNT), [0, COUNT // 2])
    factor = 0.5 / np.array(EDM2_SCALING.std)[:, None, None]
    expected = (raw[0][kept] - np.array(EDM2_SCALING.mean)[:, None, None]) * factor
    np.testing.assert_allclose(data.scaled(slice(None)), expected, atol=2e-3)
    np.testing.assert_allclose(data.scaled_stds(slice(None)), raw[1][kept] * factor, rtol=1e-3)
    assert (card.dtype, card.sampled, card.classes) == ("float16", True, 3)
    assert data.images_NCHW.dtype == data.stds_NCHW.dtype == np.float16
    np.testing.assert_allclose(
        (card.channel_mean, card.channel_std), (EDM2_SCALING.mean, EDM2_SCALING.std)
    )
    held = open_dataset(tmp_path / "out", "holdout")
    np.testing.assert_allclose(held.scaled_stds(slice(None))[1], raw[1][COUNT // 2] * factor,
                               rtol=1e-3)  # fmt: skip


def test_worker_processes_read_the_same_latents(tmp_path, edm2, monkeypatch):
    alone = prepare(edm2, tmp_path / "alone", workers=1)
    monkeypatch.setattr(sys.modules[prepare.__module__], "POOL_IMAGES", 0)
    assert prepare(edm2, tmp_path / "pool", workers=2, shard=4) == alone


def test_the_cards_spread_counts_both_parts_of_the_mixture(tmp_path, edm2):
    card = prepare(edm2, tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    means, stds = data.scaled(slice(None)), data.scaled_stds(slice(None))
    total = means.astype(float).var(axis=0).mean() + np.square(stds.astype(float)).mean()
    assert card.std == pytest.approx(np.sqrt(total), rel=1e-5)
    assert card.mean == pytest.approx(means.mean(), abs=1e-6)


def test_a_sampled_latent_is_a_pure_function_of_seed_and_draw(tmp_path, edm2):
    prepare(edm2, tmp_path / "out")
    data = open_dataset(tmp_path / "out")
    index = np.array([3, 0, 3])
    draws = data.sampled(index, 7, np.array([10, 11, 12]))
    again = data.sampled(index[::-1], 7, np.array([12, 11, 10]))[::-1]
    np.testing.assert_array_equal(draws, again)
    assert np.abs(draws[0] - draws[2]).max() > 0.01
    assert np.abs(draws - data.sampled(index, 8, np.array([10, 11, 12]))).max() > 0.01
    many = data.sampled(np.zeros(4000, int), 7, np.arange(4000)).astype(float)
    mean, std = data.scaled(np.array([0]))[0], data.scaled_stds(np.array([0]))[0]
    assert np.abs((many.mean(axis=0) - mean) / std * np.sqrt(4000)).max() < 5
    np.testing.assert_allclose(many.std(axis=0), std, rtol=0.08)


def test_pixels_are_their_own_sample(tmp_path):
    prepare(DatasetConfig(name="d", source="digits", limit=20), tmp_path)
    data = open_dataset(tmp_path)
    index = np.array([4, 2])
    np.testing.assert_array_equal(data.sampled(index, 0, index), data.scaled(index))
    assert not data.scaled_stds(index).any()
    assert (data.stds_NCHW, data.card.sampled) == (None, False)


def test_another_spread_is_another_distribution(tmp_path, raw):
    means, stds = raw
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npz"))
    cards = []
    for n, arrays in enumerate(({"stds": stds}, {"stds": stds * 2}, {})):
        np.savez(tmp_path / "x.npz", latents=means, **arrays)
        cards.append(prepare(made, tmp_path / str(n)))
    assert len({card.id for card in cards}) == 3
    assert [card.sampled for card in cards] == [True, True, False]
    assert [card.images_sha256 for card in cards] == [cards[0].images_sha256] * 3


def test_the_study_can_state_the_channels(tmp_path, raw, edm2):
    made = edm2.model_copy(
        update={"channel_mean": [1, 2, 3, 4.0], "channel_std": [2.0] * 4, "latent_std": 1.0}
    )
    card = prepare(made, tmp_path / "out")
    assert (card.scale, card.channel_mean) == (1.0, (1, 2, 3, 4))
    expected = (raw[0][1] - np.array([1, 2, 3, 4])[:, None, None]) / 2
    scaled = open_dataset(tmp_path / "out").scaled(slice(None))[0]
    np.testing.assert_allclose(scaled, expected, atol=5e-3)
    with pytest.raises(JstarError, match="have 1 value.*4 channels"):
        prepare(edm2.model_copy(update={"channel_mean": [1.0], "channel_std": [1.0]}), tmp_path)


def test_latents_that_cannot_be_used(tmp_path, raw, edm2):
    means, stds = raw
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npz"))
    for match, latents, spread in (
        ("must be finite", np.where(means > 8, np.nan, means), stds),
        ("below 65504", means * 1e6, stds),
        ("standard deviation is negative", means, -stds),
        ("the same for both", means, stds[:3]),
    ):
        np.savez(tmp_path / "x.npz", latents=latents, stds=spread)
        with pytest.raises(JstarError, match=match):
            prepare(made, tmp_path / "out")
    with pytest.raises(JstarError, match="latents cannot be mirrored"):
        prepare(edm2.model_copy(update={"mirror": True}), tmp_path / "out")
    with pytest.raises(JstarError, match="holds latents already"):
        prepare(edm2.model_copy(update={"vae": "x"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- encoding -------------------------------------------------------------------------------------


def test_a_vae_that_is_not_there(tmp_path):
    files = {"a.png": formats.encoded(formats.pictures(1, 16)[0])}
    folder = formats.write_folder(tmp_path / "i", files)
    made = DatasetConfig(name="v", source="images", path=str(folder), vae=str(tmp_path / "no"))
    with pytest.raises(JstarError, match="not the folder of a diffusers AutoencoderKL"):
        prepare(made, tmp_path / "out")
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "config.json").write_text(
        '{"latent_channels": 4, "block_out_channels": [1]}'
    )
    with pytest.raises(JstarError, match="holds no weights"):
        prepare(made, tmp_path / "out")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    diffusers = pytest.importorskip("diffusers", reason="the extra 'latents' is not installed")
    import torch

    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=3,
        norm_num_groups=4, sample_size=16, scaling_factor=0.25,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vae")
    model.save_pretrained(folder)
    return folder, model.eval()


def test_images_are_encoded_to_mean_and_spread(tmp_path, vae):
    import torch

    folder, model = vae
    images = formats.pictures(20, 16)
    files = {f"{n:02d}.png": formats.encoded(image) for n, image in enumerate(images)}
    source = formats.write_folder(tmp_path / "i", files)
    made = DatasetConfig(name="v", source="images", path=str(source), vae=str(folder))
    assert source_shape(made) == (20, 3, 8, 8)
    card = prepare(made, tmp_path / "out", shard=7)
    data = open_dataset(tmp_path / "out")
    with torch.inference_mode():
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2) / 127.5 - 1).float()
        posterior = model.encode(pixels).latent_dist
    # 1 / scaling_factor is taken as the latents' standard deviation, and 0.5 is wanted.
    factor = 0.25 * 0.5
    np.testing.assert_allclose(data.scaled(slice(None)), posterior.mean * factor, atol=1e-3)
    np.testing.assert_allclose(data.scaled_stds(slice(None)), posterior.std * factor, rtol=2e-3)
    assert card.sampled
    assert card.encoder.startswith(f"AutoencoderKL {folder.name}, weights sha256 ")
    # A run broken off between two batches ends in the same bytes.
    assert prepare(made, tmp_path / "again", shard=7).id == card.id


def test_image_sizes_must_divide_by_the_vaes(tmp_path, vae):
    files = {"a.png": formats.encoded(formats.pictures(1, 15)[0])}
    made = DatasetConfig(
        name="v", source="images", vae=str(vae[0]),
        path=str(formats.write_folder(tmp_path / "i", files)),
    )  # fmt: skip
    with pytest.raises(JstarError, match="15x15 do not divide by the VAE's 2"):
        prepare(made, tmp_path / "out")
