"""`jstar diagnose` from the outside: files, words and refusals."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from jstar.cli import app
from jstar.errors import JstarError
from jstar.records import read_json, sealed, write_json

ADAPTERS = """
import numpy as np, torch
from jstar.diagnose import preconditioned

images = torch.from_numpy(np.load("line.npz")["images"]).double().permute(0, 3, 1, 2) / 127.5 - 1

def exact(x, sigma, labels):
    data = images.flatten(1)
    square = torch.cdist(x.double().flatten(1), data).square()
    weight = torch.softmax(-square / (2 * sigma.double()[:, None] ** 2), dim=1)
    return (weight @ data).reshape(x.shape).float()

def denoiser():
    return exact

def noisy():
    return lambda x, sigma, labels: x

def untrained():
    return preconditioned(lambda x, c_noise: torch.zeros_like(x), "vp")

def number():
    return 3
"""
DRAWS = ["--sigma-min", "0.02", "--sigma-max", "20", "--sigmas", "8", "--queries", "48"]


@pytest.fixture
def folder(tmp_path, npz, monkeypatch):
    """A working directory with the images and a module of adapters."""
    (tmp_path / "line.npz").write_bytes(npz.read_bytes())
    (tmp_path / "adapters_of_test.py").write_text(ADAPTERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "adapters_of_test", raising=False)
    return tmp_path


def run(*arguments):
    done = CliRunner().invoke(app, ["diagnose", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_an_exact_denoiser_from_a_module(folder):
    text = run("--denoiser", "adapters_of_test:denoiser", "--dataset", "line.npz", *DRAWS)
    assert "Nowhere is it worse than the dataset's mean image." in text
    assert "not mis-scaled" in text
    assert "Warning" not in text
    frame = pd.read_csv("diagnosis/diagnosis.csv")
    assert len(frame) == 8
    assert (frame["gap"] < 1e-8).all()
    assert read_json("diagnosis/diagnosis.json")["floor_share"] > 0.9999
    assert text.strip() in (folder / "diagnosis/diagnosis.md").read_text()
    assert (folder / "diagnosis/diagnosis.png").stat().st_size > 10_000
    # the draws and J* are there now: used again, and other ones are refused
    found = sorted(p.name for p in (folder / "diagnosis/optimal").iterdir())
    assert found == ["curve.csv", "curve.json", "floors.csv", "floors.json", "oracle"]
    with pytest.raises(JstarError, match="made with --queries 48, asked is 32"):
        run("--denoiser", "adapters_of_test:denoiser", "--dataset", "line.npz", "--queries", 32)


def test_images_and_a_prompt_from_the_command_line(folder):
    np.save("prompt.npy", np.ones((1, 7), "float32"))
    given = ["--prompt", "prompt.npy", "--sample", 64, "--features", "pixels"]
    text = run("--denoiser", "adapters_of_test:denoiser", "--dataset", "line.npz", *given, *DRAWS)
    assert "Warning: the prompt is ignored" in text
    assert "Against the 64 training images, 64 images drawn with it" in text
    sample = read_json("diagnosis/diagnosis.json")["sample"]
    assert sample["against"] == "training"
    # Of 64 points on a line, of variance 0.34: the error of their mean alone is 0.005 chi^2_1.
    assert sample["scores"]["fid"] < 0.06


def test_what_a_bad_denoiser_is_told(folder):
    """The noisy image itself: no gap at small noise, worse than the mean image at large."""
    text = run("--denoiser", "adapters_of_test:noisy", "--dataset", "line.npz", *DRAWS)
    assert text.startswith("Warning: sigma is ignored")
    frame = pd.read_csv("diagnosis/diagnosis.csv")
    np.testing.assert_allclose(frame["loss"], frame["sigma"] ** 2, rtol=0.2)
    assert "worse than the dataset's mean image at sigma = " in text
    text = run("--denoiser", "adapters_of_test:untrained", "--dataset", "line.npz")
    assert "weighted as 'vp' trains" in text


def test_two_denoisers_side_by_side(folder):
    both = ["--denoiser", "adapters_of_test:denoiser", "--denoiser", "adapters_of_test:noisy"]
    text = run(*both, "--dataset", "line.npz", *DRAWS)
    assert text.startswith("adapters_of_test:noisy against adapters_of_test:denoiser")
    frame = pd.read_csv("diagnosis/comparison.csv")
    assert set(frame["better"][1:]) == {"adapters_of_test:denoiser"}
    alone = pd.read_csv("diagnosis/2/diagnosis.csv")
    np.testing.assert_allclose(frame["gap_other"], alone["gap"])
    np.testing.assert_allclose(frame["difference"], frame["gap_other"] - frame["gap_first"])


def test_a_denoiser_that_knows_the_class_is_held_against_its_class(folder):
    run("--denoiser", "adapters_of_test:denoiser", "--dataset", "line.npz", "--labels", *DRAWS)
    assert read_json("diagnosis/optimal/oracle/oracle.json")["estimator"] == "exact_by_class"
    frame = pd.read_csv("diagnosis/diagnosis.csv")
    assert frame["gap"].max() > 1e-6  # it does not use the label, and that is a gap
    oracle = folder / "diagnosis/optimal/oracle/oracle.json"
    write_json(oracle, sealed({**read_json(oracle), "estimator": "exact"}))
    with pytest.raises(JstarError, match="'exact_by_class' .* denoiser that is given no labels"):
        run("--denoiser", "adapters_of_test:denoiser", "--dataset", "line.npz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give one of --denoiser"),
        (["--denoiser", "a:b", "--run", "x", "--dataset", "line.npz"], "cannot be imported"),
        (["--denoiser", "a:b"], "--dataset is missing"),
        (["--denoiser", "denoiser", "--dataset", "line.npz"], "must be module:factory"),
        (["--denoiser", "no_such:f", "--dataset", "line.npz"], "cannot be imported"),
        (
            ["--denoiser", "adapters_of_test:denoise", "--dataset", "line.npz"],
            "no function 'denoise', did you mean 'denoiser'",
        ),
        (["--denoiser", "adapters_of_test:number", "--dataset", "line.npz"], "returned int"),
        (["--run", "nowhere", "--dataset", "line.npz"], "is not a finished run"),
        (["--diffusers", ".", "--dataset", "line.npz"], "not a diffusers pipeline|not installed"),
        (["--denoiser", "adapters_of_test:exact", "--dataset", "no.npz"], "TypeError|no.npz"),
        (
            ["--denoiser", "adapters_of_test:denoiser", "--dataset", "line.npz", "--sigma-min", 90],
            "--sigma-min 90",
        ),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_no_diagnosis(folder, arguments, words):
    with pytest.raises(JstarError, match=words) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    assert not (folder / "diagnosis/diagnosis.csv").exists()


def test_a_diffusers_pipeline_from_its_folder(folder):
    diffusers = pytest.importorskip("diffusers", reason="the extra 'latents' is not installed")
    import torch

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=4, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
    )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained("pipeline")
    text = run("--diffusers", "pipeline", "--dataset", "line.npz", *DRAWS)
    assert "UNet2DModel with DDPMScheduler" in text
    assert "weighted as 'discrete epsilon' trains" in text
