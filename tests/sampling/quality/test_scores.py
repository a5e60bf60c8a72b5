"""Two sets of images compared from the command line, with the values of public packages."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from jstar.cli import app
from jstar.errors import JstarError
from jstar.records import read_json


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Digits as 8 x 8 pixels: some in a folder of grey .png, others in a .npz with labels."""
    folder = tmp_path_factory.mktemp("sets")
    digits = load_digits()
    pixels = (digits.images * 255 / 16).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(pixels))
    one, other = pixels[order[:300]], pixels[order[300:800]]
    one = np.roll(one, 1, axis=2)
    (folder / "drawn").mkdir()
    for k, image in enumerate(one):
        Image.fromarray(image).save(folder / "drawn" / f"{k:04d}.png")
    rgb = np.repeat(other[..., None], 3, axis=3)  # a folder's images are made RGB
    np.savez(folder / "real.npz", images=rgb, labels=digits.target[order[300:800]])
    return folder, one, other


def run(*arguments):
    done = CliRunner().invoke(app, ["sampling", "quality", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def as_features(images):
    x = np.repeat(images[:, None], 3, axis=1).reshape(len(images), -1)
    return x.astype(np.float64) / 127.5 - 1


def test_pixels_by_the_definitions_of_torch_fidelity(sets, tmp_path):
    folder, one, other = sets
    text = run(folder / "drawn", folder / "real.npz", "--features", "pixels", "--out", tmp_path)
    row = pd.read_csv(tmp_path / "comparison.csv").iloc[0]
    x, y = as_features(one), as_features(other)
    # fid_statistics_to_metric of torch-fidelity 0.4, word by word
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(cov_x.dot(cov_y)).astype("complex128")).real.sum()
    apart = x.mean(0) - y.mean(0)
    expected = apart.dot(apart) + np.trace(cov_x) + np.trace(cov_y) - 2 * root
    assert row["fid"] == pytest.approx(expected, rel=1e-5)
    assert row["fid_low"] < row["fid"] < row["fid_high"]
    # calculate_precision_recall_full, neighborhood=3
    reach_x, reach_y = (np.sort(cdist(f, f), axis=1)[:, 3] for f in (x, y))
    assert row["precision"] == pytest.approx((cdist(x, y) <= reach_y).any(1).mean(), abs=0.004)
    assert row["recall"] == pytest.approx((cdist(y, x) <= reach_x).any(1).mean(), abs=0.004)
    # mmd2 with the polynomial kernel, all images as the one subset
    k_xx, k_yy, k_xy = ((a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    m, n = len(x), len(y)
    mmd = (k_xx.sum() - np.trace(k_xx)) / (m * (m - 1)) + (k_yy.sum() - np.trace(k_yy)) / (
        n * (n - 1)
    )
    assert row["kid"] == pytest.approx(mmd - 2 * k_xy.mean(), rel=1e-4)
    assert f"FID {row['fid']:.4g}" in text
    assert "300 images against 500, features pixels" in text


class Grey(torch.nn.Module):
    """Stands for Inception: uint8 RGB in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x.float(), 2)[:, 0].flatten(1)


def test_a_torchscript_file_and_the_classifier(sets, tmp_path):
    folder, one, other = sets
    torch.jit.script(Grey()).save(str(tmp_path / "grey.pt"))
    public = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance
    run(
        folder / "drawn", folder / "real.npz", "--features", tmp_path / "grey.pt", "--out", tmp_path
    )
    row = pd.read_csv(tmp_path / "comparison.csv").iloc[0]
    network = Grey()
    network.num_features = 16
    fid = public(feature=network, input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    for images, real in ((one, False), (other, True)):
        fid.update(torch.from_numpy(np.repeat(images[:, None], 3, axis=1)), real=real)
    assert row["fid"] == pytest.approx(float(fid.compute()), rel=1e-5)
    assert row["features"].startswith("grey-")
    run(folder / "drawn", folder / "real.npz", "--out", tmp_path)
    facts = read_json(tmp_path / "comparison.json")
    assert facts["features"].startswith("classifier-")
    assert facts["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either --config, or two sets"),
        (["real.npz"], "give either --config, or two sets"),
        (["real.npz", "real.npz", "--config", "x.yaml"], "give either"),
        (["drawn", "nowhere"], "nowhere: no such file or folder"),
        (["few.npz", "real.npz"], "'few' has 20 images, at least 40"),
        (["small.npz", "real.npz"], r"uint8 of shape \(3, 4, 4\).*must be alike"),
        (["real.npz", "drawn"], "'drawn' has no labels"),
    ],
)
def test_refusals(sets, tmp_path, monkeypatch, arguments, words):
    folder, _, _ = sets
    monkeypatch.chdir(folder)
    images = np.load("real.npz")["images"]
    np.savez("few.npz", images=images[:20])
    np.savez("small.npz", images=images[:, :4, :4])
    with pytest.raises(JstarError, match=words):
        run(*arguments, "--out", tmp_path)
    assert not (tmp_path / "comparison.csv").exists()
