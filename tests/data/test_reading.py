"""jstar prepare --dry-run says what would be read, and writes nothing."""

import formats
import numpy as np
import pytest
import yaml

from jstar.config import DatasetConfig
from jstar.data.reading import read_sample


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
        "images: 6 to train on, 1 held out, of 7 found; [3, 8, 8] uint8",
        "classes: 3, of 3 there are images: 2 to 2 of each",
        f"values of 7 of them in the model's data scale: {values.min():.3g} to "
        f"{values.max():.3g}, mean {values.mean():.3g}, deviation {values.std():.3g}",
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
    assert found.sample == 256
    assert found.std == pytest.approx(0.5 * spread, rel=0.02)
    assert any(line.startswith("warning: the latents") for line in found.lines()) == warned
    scaled = made.model_copy(update={"channel_mean": [0.0] * 4, "channel_std": [spread] * 4})
    assert not any(line.startswith("warning") for line in read_sample(scaled).lines())
