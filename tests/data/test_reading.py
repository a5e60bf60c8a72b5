"""jstar prepare --dry-run says what would be read, and writes nothing."""

import io
from types import SimpleNamespace

import formats
import jinja2
import numpy as np
import pytest
import yaml
from conftest import ROOT
from docutils.core import publish_string
from PIL import Image

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.data.reading import read_sample, reading_of


def test_the_command_writes_nothing(tmp_path, tiny_study, jstar):
    pixels = formats.pictures(7)
    names = ["a/0.png", "a/1.png", "a/2.png", "b/3.png", "b/4.png", "c/5.png", "c/6.png"]
    files = {n: formats.encoded(image) for n, image in zip(names, pixels, strict=True)}
    path = formats.write_folder(tmp_path / "x", files | {"a/7.gif": b"", "c/.8.png": b""})
    dataset = {"name": "toy", "source": "images", "path": str(path), "limit": None, "holdout": 1}
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(tiny_study(dataset=dataset, train={"batch": 2})))
    results = tmp_path / "results"
    code, out, _ = jstar("prepare", "--config", study, "--results", results, "--dry-run")
    assert code == 0
    assert not results.exists()
    values = pixels / 127.5 - 1
    assert out.splitlines() == [
        f"dataset 'toy': {path}, read as images",
        "class: rank of the folder",
        "images: 6 to train on, 1 held out; [3, 8, 8] uint8",
        "classes: 3; images of one: 2 at least, 2 in the median, 2 at most",
        f"values of 7 of them in the model's data scale: {values.min():.3g} to "
        f"{values.max():.3g}, mean {values.mean():.3g}, deviation {values.std():.3g} "
        "(train.sigma_data: 0.5)",
        "left out: 1 files, .gif",
        "left out: 1 files, hidden",
    ]


@pytest.mark.parametrize(("spread", "warned"), [(1.0, False), (4.34, True), (0.5, True)])
def test_latents_of_another_scale_are_named(tmp_path, spread, warned):
    """Unit deviation is what prepare takes to latent_std = 0.5."""
    rng = np.random.default_rng(0)
    means = spread * rng.standard_normal((2000, 4, 4, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", means)
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npy"))
    found = read_sample(made)
    assert found.values.sample == 256
    assert found.values.std == pytest.approx(0.5 * spread, rel=0.02)
    assert any(line.startswith("warning: the latents") for line in found.lines()) == warned
    scaled = made.model_copy(update={"channel_mean": [0.0] * 4, "channel_std": [spread] * 4})
    assert not any(line.startswith("warning") for line in read_sample(scaled).lines())


def mixed_folder(path):
    """Four ImageNet classes of 5, 3, 1 and 1 images: grey, CMYK, turned, with a profile, twins."""
    pixels = formats.pictures(6, 16)
    turned, profile = Image.Exif(), b"a profile"
    turned[274] = 6
    upright = Image.Exif()
    upright[274] = 1
    cyan = io.BytesIO()
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(cyan, "JPEG")
    palette = io.BytesIO()
    Image.fromarray(pixels[4]).quantize(16).save(palette, "PNG")
    contents = [
        [formats.encoded(pixels[0][..., :1]), formats.encoded(pixels[1][..., :1], "JPEG"),
         formats.encoded(pixels[2], "JPEG", exif=turned), cyan.getvalue(),
         formats.encoded(pixels[2], "JPEG", exif=upright)],
        [formats.encoded(pixels[3], "PNG", icc_profile=profile), formats.encoded(pixels[3]),
         formats.encoded(pixels[3], "PNG", exif=turned)],
        [palette.getvalue()],
        [formats.encoded(pixels[5])],
    ]  # fmt: skip
    files = {
        f"n{label:08d}/{n}.JPEG": data
        for label, images in enumerate(contents)
        for n, data in enumerate(images)
    }
    return formats.write_folder(path, files | {"n00000000/x.gif": b"", "README": b""})


def test_the_report_of_a_mixed_folder_is_kept_in_the_card(tmp_path, tiny_study, jstar):
    path = mixed_folder(tmp_path / "in")
    made = DatasetConfig(name="toy", source="imagenet", path=str(path), size=16)
    card = prepare(made, tmp_path / "out", shard=3)
    values = open_dataset(tmp_path / "out").scaled(slice(None))
    # 10, 6, 2 images: of JPEGs the two turned ones are equal, of PNGs three.
    assert reading_of(card).lines(0.4) == [
        f"dataset 'toy': {path}, read as imagenet",
        "class: rank of the WordNet id among the folders",
        "images: 10 to train on, 0 held out; [3, 16, 16] uint8",
        "classes: 4; images of one: 1 at least, 1 in the median, 5 at most",
        f"values of all of them in the model's data scale: {values.min():.3g} to "
        f"{values.max():.3g}, mean {card.mean:.3g}, deviation {card.std:.3g} "
        "(train.sigma_data: 0.4)",
        "colours converted, of all: 1 CMYK, 2 grey, 1 palette",
        "stated by files, not applied, of all: 2 EXIF orientation, 1 ICC profile",
        "equal images: 3 equal an earlier one",
        "left out: 1 files, without a suffix",
        "left out: 1 files, .gif",
    ]
    assert (card.converted, card.images_a_class) == (4, (1, 1, 5))
    assert card.mean == pytest.approx(values.mean(), abs=1e-6)
    assert card.low == pytest.approx(values.min())
    assert card.high == pytest.approx(values.max())
    np.testing.assert_allclose(card.channel_means, values.mean(axis=(0, 2, 3)), atol=1e-6)
    sample = read_sample(made)
    assert sample.lines()[5:7] == [
        "colours converted, of 10: 1 CMYK, 2 grey, 1 palette",
        "stated by files, not applied, of 10: 2 EXIF orientation, 1 ICC profile",
    ]
    # A run broken off in the middle counts each file once, and worker processes count as well.
    assert prepare(made, tmp_path / "again", shard=100, workers=1) == card


def test_classes_without_images_and_held_out_twins(tmp_path):
    images = formats.pictures(8)
    images[4] = images[1]
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 9, 9, 9, 2, 2, 2, 2])
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npz"), holdout=2)
    lines = reading_of(prepare(made, tmp_path / "out")).lines()
    assert "classes: 10; images of one: 0 at least, 0 in the median, 3 at most" in lines
    twins = "equal images: 0 equal an earlier one; 1 held-out ones are trained on as well"
    assert twins in lines


@pytest.mark.parametrize(("source", "warned"), [("repa", False), ("edm2", True)])
def test_latents_of_another_encoder_are_named(tmp_path, source, warned):
    """REPA's and EDM2's files have one layout, but EDM2's VAE is fed pixels in 0..1."""
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((30, 4, 4, 4)) / 0.18215 * 0.9
    files = formats.moment_files(unit, np.full_like(unit, 0.01), np.arange(30) % 2)
    path = formats.write_folder(tmp_path / "vae", files)
    made = DatasetConfig(name="toy", source=source, path=str(path))
    for found in (read_sample(made), reading_of(prepare(made, tmp_path / "out"))):
        assert found.lines()[1] == "latents: Gaussians: a mean and a deviation of each value"
        hits = [line for line in found.lines() if "are not of the encoder" in line]
        assert bool(hits) == warned


def test_the_caption_of_the_report_page_says_the_same(tmp_path):
    """Names of files are no markup: docutils would take `set_` for a reference."""
    path = mixed_folder(tmp_path / "set_ *a* |b| `c")
    made = DatasetConfig(name="toy", source="imagenet", path=str(path), size=16)
    card = prepare(made, tmp_path / "out")
    lines = reading_of(card).lines(0.5)

    made_by = SimpleNamespace(config={"reading": lambda output: lines}, output=None)
    text = (ROOT / "workflow/report/data.rst").read_text()
    # As Snakemake renders captions (report/__init__.py).
    engine = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    source = engine.from_string(text).render(snakemake=made_by)
    page = publish_string(source, writer="pseudoxml", settings_overrides={"report_level": 5})
    shown = page.decode().split("<literal_block")[1].split("\n", 1)[1]
    assert [line.strip() for line in shown.strip().splitlines()] == lines
    assert b"system_message" not in page
