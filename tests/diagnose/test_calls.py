"""`jstar.diagnose(denoiser, images)`: data as users have them, and the first call first."""

import gzip
import struct
import time

import numpy as np
import pytest
import torch

import jstar
from jstar.data import open_dataset
from jstar.diagnose.images import collect, images_config, peek, prepared_folder, write_images
from jstar.errors import JstarError

FEW = {"sigma_min": 0.02, "sigma_max": 20, "sigmas": 6, "queries": 48}


def scaled(points):
    return points.transpose(0, 3, 1, 2).astype("float32") / 127.5 - 1


def test_an_array_and_a_function_are_enough(points, exact, tmp_path):
    found = jstar.diagnose(exact, scaled(points), held_out=points[::7], **FEW)
    frame = found.to_frame()
    assert found.adapter.verdict == "right"
    assert (frame["gap"] < 1e-8).all()
    assert frame["held_out"].notna().all()
    assert "Verdict" in found.summary()
    found.plot(tmp_path / "figure")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_figure_shades_what_is_weak_and_cuts_no_title(points, exact, tmp_path, monkeypatch):
    def weak(x, sigma, labels):
        large = (sigma > 1).reshape(-1, 1, 1, 1)
        return torch.where(large, exact(x, sigma) + 2, exact(x, sigma))

    found = jstar.diagnose(weak, scaled(points), held_out=points[::7], **FEW)
    drawn = []
    monkeypatch.setattr("jstar.figures.denoiser.save", lambda pages, stem: drawn.extend(pages))
    found.plot(tmp_path / "figure")
    (figure,) = drawn
    figure.draw_without_rendering()
    sigma = found.to_frame()["sigma"].to_numpy()
    for panel in figure.axes:
        shaded = [patch.get_extents() for patch in panel.patches]
        assert len(shaded) == (sigma > 1).sum()
        left = panel.transData.inverted().transform((min(box.x0 for box in shaded), 0))[0]
        assert left == pytest.approx(np.sqrt(sigma[sigma > 1][0] * sigma[sigma <= 1][-1]))
        titles = panel._left_title.get_window_extent()
        assert titles.x0 >= 0
        assert titles.x1 <= figure.bbox.width


def test_a_dataset_and_a_loader_give_the_images_and_labels(points):
    x, y = torch.from_numpy(scaled(points)), torch.arange(len(points)) % 2
    pairs = torch.utils.data.TensorDataset(x, y)
    for given in (pairs, torch.utils.data.DataLoader(pairs, batch_size=10),
                  [{"image": points[k], "label": k % 2} for k in range(64)]):  # fmt: skip
        images, labels = collect(given)
        assert len(images) == 64
        np.testing.assert_array_equal(labels, y)
    with pytest.raises(JstarError, match="are int, allowed are a path"):
        collect(3)


def test_floats_that_are_pixels_become_pixels_and_others_stay(points, tmp_path):
    path = write_images(scaled(points), None, tmp_path / "a.npz")
    np.testing.assert_array_equal(np.load(path)["images"], points)
    unit = scaled(points) / 2 + 0.5
    x, _ = peek(write_images(unit, None, tmp_path / "b.npz"), tmp_path)
    np.testing.assert_allclose(x, unit[:2], atol=5e-4)


def test_latents_keep_their_own_scale(tmp_path):
    latents = np.random.default_rng(0).normal(size=(9, 4, 2, 2)).astype("float16")
    np.savez(tmp_path / "l.npz", latents=latents)
    x, _ = peek(tmp_path / "l.npz", tmp_path)
    np.testing.assert_array_equal(x, latents[:2].astype("float32"))
    np.savez(tmp_path / "f.npz", images=latents.astype("float32") * 3)
    x, _ = peek(tmp_path / "f.npz", tmp_path)
    np.testing.assert_allclose(x, 3 * latents[:2].astype("float32"), rtol=1e-3)


def test_a_denoiser_that_fails_is_refused_before_any_work(tmp_path):
    images = np.zeros((60_000, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "many.npz", images=images)

    def fails(x, sigma, labels):
        raise ValueError("no such layer")

    start = time.process_time()
    with pytest.raises(JstarError, match="no such layer"):
        jstar.diagnose(fails, tmp_path / "many.npz", out=tmp_path / "out")
    assert time.process_time() - start < 5
    assert not (tmp_path / "out").exists()


def test_images_are_prepared_once_and_again_when_they_change(points, tmp_path):
    path, work = tmp_path / "a.npz", tmp_path / "work"
    np.savez(path, images=points)
    made = (prepared_folder(path, work) / "card.json").stat().st_mtime_ns
    assert (prepared_folder(path, work) / "card.json").stat().st_mtime_ns == made
    np.savez(path, images=255 - points)
    x = open_dataset(prepared_folder(path, work)).scaled(slice(0, 2))
    np.testing.assert_allclose(x, -scaled(points)[:2], atol=1e-6)
    np.savez(tmp_path / "b.npz", images=points)
    x = open_dataset(prepared_folder(tmp_path / "b.npz", work)).scaled(slice(0, 2))
    np.testing.assert_allclose(x, scaled(points)[:2], atol=1e-6)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_are_read_as_they_are_downloaded(points, tmp_path, end):
    """MNIST's format: a folder stands for its training images, a file for itself."""
    images, labels = points[..., 0], (np.arange(len(points)) % 3).astype(np.uint8)
    for name, array in (("train-images-idx3", images), ("train-labels-idx1", labels),
                        ("t10k-images-idx3", 255 - images)):  # fmt: skip
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        with (gzip.open if end else open)(tmp_path / f"{name}-ubyte{end}", "wb") as file:
            file.write(head + array.tobytes())
    data = open_dataset(prepared_folder(tmp_path, tmp_path / "one"))
    np.testing.assert_allclose(data.scaled(slice(0, 64)), scaled(points), atol=1e-6)
    np.testing.assert_array_equal(data.labels_N, labels)
    x, _ = peek(tmp_path / f"t10k-images-idx3-ubyte{end}", tmp_path / "other")
    np.testing.assert_allclose(x, -scaled(points)[:2], atol=1e-6)


def test_what_is_no_dataset_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(JstarError, match="is no dataset, allowed are"):
        images_config(tmp_path / "a.txt", tmp_path)
    with pytest.raises(JstarError, match="reach 255"):
        jstar.diagnose(lambda x, s, y: x, np.full((9, 1, 4, 4), 255.0, "float32"))
