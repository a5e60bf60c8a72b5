"""The latents of EDM2, REPA, LightningDiT and fast-DiT: one distribution, whatever its files."""

from dataclasses import asdict

import formats
import numpy as np
import pytest
from formats import EDM2_SHIFT, EDM2_STD, SD_STD

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.check import source_shape
from jstar.errors import JstarError
from jstar.optimal import optimal_loss

COUNT, CHANNELS, SIDE = 40, 4, 4
# What a card says of the files rather than of the distribution.
OF_FILES = ("source", "origin", "latents", "channel_mean", "channel_std", "left_out", "facts",
            "source_stamp")  # fmt: skip


def config(source, path, **more):
    return DatasetConfig(name="toy", source=source, path=str(path), **more)


def means_of(source, path, **more):
    """The study that trains on one value an image, as the two others' files hold."""
    posterior = {"posterior": "mean"} if source in ("edm2", "repa") else {}
    return config(source, path, **posterior, **more)


@pytest.fixture
def unit():
    """Latents of unit scale on a grid of 1/256: float32 loses nothing by any maker's scaling."""
    values = np.random.default_rng(0).standard_normal((COUNT, CHANNELS, SIDE, SIDE))
    return np.round(values * 256) / 256


@pytest.fixture
def labels():
    return (7 * np.arange(COUNT) + 3) % 5


@pytest.fixture
def layouts(tmp_path, unit, labels):
    return formats.write_layouts(tmp_path / "in", unit, labels)


def test_four_layouts_give_one_card(tmp_path, layouts, unit, labels):
    cards = {}
    for source, path in layouts.items():
        made = means_of(source, path, holdout=4)
        assert source_shape(made) == (COUNT, CHANNELS, SIDE, SIDE)
        cards[source] = prepare(made, tmp_path / source, shard=7)
        data = open_dataset(tmp_path / source)
        kept = np.setdiff1d(np.arange(COUNT), np.arange(4) * COUNT // 4)
        np.testing.assert_array_equal(data.images_NCHW, unit[kept].astype(np.float16))
        np.testing.assert_array_equal(data.labels_N, labels[kept])
    assert len({card.id for card in cards.values()}) == 1
    first, *others = (asdict(card) for card in cards.values())
    for card in others:
        assert {k for k in card if card[k] != first[k]} <= set(OF_FILES)
    assert {card.latents for card in cards.values()} == {
        "means alone", "one draw of each from its Gaussian",
    }  # fmt: skip
    assert cards["repa"].channel_std == (SD_STD,) * 4


def test_one_thousand_images_in_four_layouts_have_one_optimal_loss(tmp_path, real_data):
    """TAESD's latents are of Stable Diffusion's unit scale.

    EDM2's files add 5.81 to a value, so float32 rounds what is near zero: its bytes may differ.
    """
    archive = np.load(real_data("imagenet-samples-taesd256.npz"))
    unit = archive["latents"][:, :, ::2, ::2].astype(np.float64)
    labels = archive["labels"]
    assert len(unit) == 1000
    cards, curves = {}, {}
    for source, path in formats.write_layouts(tmp_path / "in", unit, labels).items():
        cards[source] = prepare(means_of(source, path), tmp_path / source)
        data = open_dataset(tmp_path / source)
        curves[source] = optimal_loss(
            data.images_NCHW, [2.0, 8.0, 20.0], scale=data.card.scale, offset=0.0, queries=64
        )
        np.testing.assert_allclose(data.images_NCHW, unit, atol=1e-6)
    assert cards["repa"].id == cards["fast-dit"].id
    first = curves["fast-dit"]
    for curve in curves.values():
        np.testing.assert_allclose(curve.loss, first.loss, rtol=1e-4)
    assert (np.asarray(first.loss) > 0.001).all()


def test_gaussians_and_one_draw_of_each_have_one_optimal_loss_above_their_deviation(tmp_path):
    rng = np.random.default_rng(1)
    unit = rng.standard_normal((300, CHANNELS, SIDE, SIDE))
    stds = rng.uniform(0.02, 0.06, unit.shape)
    labels = np.arange(300) % 5
    draws = unit + stds * rng.standard_normal(unit.shape)
    edm2 = formats.moment_files(unit * EDM2_STD + EDM2_SHIFT, stds * EDM2_STD, labels)
    paths = {
        "edm2": formats.write_folder(tmp_path / "edm2", edm2),
        "repa": formats.write_repa(tmp_path / "repa", unit * SD_STD, stds * SD_STD, labels),
        "fast-dit": formats.write_fast_dit(tmp_path / "fast", draws, labels),
    }
    curves = {}
    for source, path in paths.items():
        card = prepare(config(source, path), tmp_path / f"{source}-out")
        data = open_dataset(tmp_path / f"{source}-out")
        assert card.sampled == (source != "fast-dit")
        curves[source] = optimal_loss(
            data.images_NCHW, [0.6, 2.0, 8.0], scale=0.5, offset=0.0, spread=data.stds_NCHW
        )
    np.testing.assert_allclose(curves["edm2"].loss, curves["repa"].loss, rtol=1e-3)
    gaussians, draws = curves["edm2"], curves["fast-dit"]
    error = np.hypot(gaussians.stderr, draws.stderr)
    within = 4 * error + np.square(0.5 * stds).mean()
    assert (np.abs(np.asarray(gaussians.loss) - draws.loss) < within).all()
    assert (within[1:] < 0.1 * np.asarray(draws.loss)[1:]).all()  # or the line above says nothing


def test_flipped_latents_are_further_points_and_held_out_with_their_image(
    tmp_path, layouts, unit, labels
):
    made = config("lightningdit", layouts["lightningdit"], mirror=True, holdout=4)
    assert source_shape(made)[0] == 2 * COUNT
    card = prepare(made, tmp_path / "out", shard=7)
    assert prepare(made, tmp_path / "again", shard=16) == card
    data, held = open_dataset(tmp_path / "out"), open_dataset(tmp_path / "out", "holdout")
    assert (card.count, card.holdout, card.mirror) == (2 * (COUNT - 4), 8, False)
    at = np.arange(4) * COUNT // 4
    both = np.stack([unit, unit[..., ::-1]], axis=1).astype(np.float16)
    np.testing.assert_array_equal(held.images_NCHW, both[at].reshape(-1, *unit.shape[1:]))
    kept = np.setdiff1d(np.arange(COUNT), at)
    np.testing.assert_array_equal(data.images_NCHW, both[kept].reshape(-1, *unit.shape[1:]))
    np.testing.assert_array_equal(data.labels_N, np.repeat(labels[kept], 2))
    few = prepare(made.model_copy(update={"limit": 10}), tmp_path / "few")
    assert (few.count, few.holdout) == (12, 8)
    for source in ("edm2", "repa", "fast-dit"):
        with pytest.raises(JstarError, match="latents cannot be mirrored"):
            prepare(config(source, layouts[source], mirror=True), tmp_path / "no")


def test_shards_of_half_precision(tmp_path, layouts, unit):
    """bfloat16 has 8 bits: NumPy does not know it."""
    import torch
    from safetensors.torch import load_file, save_file

    stored = {torch.float16: unit.astype(np.float16), torch.bfloat16: None}
    for kind, expected in stored.items():
        for shard in layouts["lightningdit"].glob("*.safetensors"):
            arrays = load_file(shard)
            save_file({n: a.to(kind) if n != "labels" else a for n, a in arrays.items()}, shard)
        made = config("lightningdit", layouts["lightningdit"], channel_mean=[0.0] * 4,
                      channel_std=[1.0] * 4)  # fmt: skip
        prepare(made, tmp_path / str(kind))
        found = open_dataset(tmp_path / str(kind)).images_NCHW
        raw = unit * np.array([2, 4, 1, 0.5])[:, None, None]
        raw += np.array([0.5, 0, -1, 2])[:, None, None]
        tolerance = 2**-8 if expected is None else 2**-10
        np.testing.assert_allclose(found, raw, rtol=tolerance, atol=tolerance)


def refused(tmp_path, match, made):
    with pytest.raises(JstarError, match=match) as caught:
        prepare(made, tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


def test_what_layouts_of_latents_must_hold(tmp_path, layouts):
    refused(tmp_path, "these are REPA's latents.* dataset.source: repa reads them",
            config("edm2", layouts["repa"]))  # fmt: skip
    assert prepare(config("repa", layouts["repa"] / "vae-sd"), tmp_path / "inner").count == COUNT
    refused(tmp_path, "'fast-dit' does not take it", means_of("fast-dit", layouts["fast-dit"],
                                                             posterior="mean"))  # fmt: skip
    features = layouts["fast-dit"] / "imagenet256_features"
    assert prepare(config("fast-dit", features), tmp_path / "one").count == COUNT
    labels = layouts["fast-dit"] / "imagenet256_labels"
    np.save(labels / "3.npy", np.array([-1]))
    refused(tmp_path, "3.npy: is int64 of shape .1,., allowed is one class",
            config("fast-dit", features))  # fmt: skip
    (labels / "3.npy").rename(labels / "1003.npy")
    refused(tmp_path, "holds no label of '3.npy'", config("fast-dit", features))
    (labels / "1003.npy").unlink()
    refused(tmp_path, "has 40 images but 39 labels", config("fast-dit", features))
    assert prepare(config("fast-dit", features, labels="none"), tmp_path / "none").classes == 1
    (features / "x.npy").write_bytes(b"")
    refused(tmp_path, "x.npy: its name must be the number", config("fast-dit", features))
    (layouts["fast-dit"] / "imagenet512_features").mkdir()
    refused(tmp_path, "found: imagenet256_features, imagenet512_features",
            config("fast-dit", layouts["fast-dit"]))  # fmt: skip


def test_what_shards_must_hold(tmp_path, layouts):
    import torch
    from safetensors.torch import load_file, save_file

    folder = layouts["lightningdit"]
    made = config("lightningdit", folder)
    (folder / "latents_stats.pt").write_bytes(b"no pickle")
    refused(tmp_path, "latents_stats.pt: must hold the tensors 'mean' and 'std'", made)
    (folder / "latents_stats.pt").unlink()
    refused(tmp_path, r"lacks latents_stats.pt; dataset.channel_mean.* of the first 20 they are "
            r"\[0\.\d+, ", made)  # fmt: skip
    made = config("lightningdit", folder, channel_mean=[0.0] * 4, channel_std=[1.0] * 4)
    path = folder / "latents_rank00_shard001.safetensors"
    whole, arrays = path.read_bytes(), load_file(path)

    def broken(match, made=made, **changed):
        kept = {n: a for n, a in {**arrays, **changed}.items() if a is not None}
        save_file({name: array.contiguous() for name, array in kept.items()}, path)
        refused(tmp_path, match, made)

    broken("holds no 'latents', found are labels, latents_flip", latents=None)
    broken("holds no 'labels'", labels=None)
    broken("has 20 images but 19 labels", labels=arrays["labels"][1:])
    broken("holds a label that is no class", labels=arrays["labels"] - 9)
    broken("labels are float32", labels=arrays["labels"].float())
    broken("latents are I64 of shape", latents=arrays["latents"].long())
    broken("latents and latents_flip have other shapes", latents=arrays["latents"][1:])
    halves = {name: arrays[name][..., :2] for name in ("latents", "latents_flip")}
    broken("has latents of shape .4, 4, 2., latents_rank00_shard000.safetensors .4, 4, 4.",
           **halves)  # fmt: skip
    broken("must be finite", latents=torch.full_like(arrays["latents"], float("nan")))
    broken("dataset.mirror: .*shard001.safetensors holds no 'latents_flip'", latents_flip=None,
           made=made.model_copy(update={"mirror": True}))  # fmt: skip
    for damaged in (whole[:-5], b"", b"\xff" * 64):
        path.write_bytes(damaged)
        refused(tmp_path, "shard001.safetensors: is damaged or cut short, or not a safetensors",
                made)  # fmt: skip
