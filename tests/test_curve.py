"""J*(sigma): the class, its table, and that all who ask for J* are told the same."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.interpolate import PchipInterpolator

from jstar.config import OptimalLossNoise, Study
from jstar.curve import OptimalLoss, read_curve
from jstar.data import prepare
from jstar.diagnose.oracle_draws import DrawOptions, open_truth
from jstar.errors import JstarError
from jstar.figures.tables import load_tables
from jstar.layout import Layout
from jstar.noise import process, total_weights
from jstar.optimal.stage import write_curve
from jstar.records import write_json, write_table
from jstar.sampling.theory.stage import read_data_facts
from jstar.scaling.stage import write_fits
from jstar.train.optimal_noise_law import OptimalWeight
from jstar.train.status import STATE_FILE, study_status

VARIANCE = 0.3


def gaussian(sigma):
    return VARIANCE * sigma**2 / (VARIANCE + sigma**2)


def table(path, loss=gaussian, sigma=np.geomspace(0.05, 3, 17)):
    """A table of J* as anybody may write it, read."""
    write_table(path, pd.DataFrame({"sigma": sigma, "loss": loss(sigma)}), {"variance": VARIANCE})
    return read_curve(path)


def test_reading_a_curve_imports_no_torch(tmp_path):
    table(tmp_path / "curve.csv")
    code = """
import sys
import jstar.figures.stage, jstar.sampling.theory.stage, jstar.scaling.stage
from jstar.curve import read_curve
read_curve(sys.argv[1]).total("edm")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "curve.csv"], check=True)


@pytest.mark.parametrize("dent", [1, 0.5])  # 0.5: lower than the value before
def test_at_the_table_s_noise_scales_at_says_what_it_says(dent, tmp_path):
    curve = table(tmp_path / "c.csv", lambda s: gaussian(s) * np.where(np.arange(17) == 8, dent, 1))
    assert (curve.at(curve.sigma * (1 + 1e-8))[0] == curve.loss).all()
    assert curve.at(curve.sigma * (1 + 3e-6))[0] == pytest.approx(curve.loss, rel=1e-4)


def test_above_one_variance_is_continued_exactly_and_below_is_refused(tmp_path):
    curve = table(tmp_path / "curve.csv")
    far = np.array([3.01, 4.0, 50.0, 1e9])
    assert curve.at(far)[0] == pytest.approx(gaussian(far), rel=1e-7)
    with pytest.raises(JstarError, match="sigma = 0.04 lies below the curve, known from 0.05"):
        curve.at([0.04, 1.0])
    with pytest.raises(JstarError, match="sigma = 3.1 of the losses is not on the curve, .* 3;"):
        curve.total("edm", [3.0, 3.1])


def test_between_the_table_s_noise_scales_the_error_is_at_least_that_made(tmp_path):
    """Every second noise scale of a grid as coarse as a default study's, told by the others."""
    sigma = np.geomspace(0.05, 3, 17)
    curve = table(tmp_path / "curve.csv")
    half = table(tmp_path / "half.csv", sigma=sigma[::2])
    assert curve.holds(sigma * (1 + 1e-8)).all()
    assert (half.holds(sigma) == (np.arange(17) % 2 == 0)).all()
    loss, stderr = half.at(sigma, inside=True)
    assert (stderr[::2] == 0).all()
    assert (stderr[1::2] > 0).all()
    error = np.abs(loss - gaussian(sigma))[1::2]
    assert (error < 2 * stderr[1::2]).all()  # where J* bends either way
    assert error.max() < 0.02 * VARIANCE
    total, total_se = half.total("edm", sigma)
    assert abs(total - curve.total("edm")[0]) < 2 * total_se
    assert total_se == pytest.approx(total_weights(process("edm"), sigma) @ stderr)


def test_what_a_table_does_not_say(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("upper,sigma,lower,loss\n0.3,2,0.1,0.2\n0.02,1,0.01,0.015\n")
    curve = read_curve(path)
    assert curve.sigma.tolist() == [1, 2]
    assert curve.stderr == pytest.approx([0.01 / 3.919928, 0.2 / 3.919928])
    assert curve.at(1e6)[0] == curve.variance == curve.loss[1]
    weight = total_weights(process("edm"), [1, 2])
    assert curve.total("edm") == pytest.approx((weight @ curve.loss, weight @ curve.stderr))
    path.write_text("sigma,loss\n1,0.5\n")
    one = read_curve(path)
    assert (one.stderr, one.upper, one.at([1, 2])[0].tolist()) == ([0], [0.5], [0.5, 0.5])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("sigma,stderr\n1,2\n", "the column 'loss' is missing"),
        ("sigma,loss\n", "holds no rows"),
        ("sigma,loss\n2,1\n1,x\n", "line 3, column 'loss': found x, a number is needed"),
        ("sigma,loss\n2,1\n1,\n", "line 3, column 'loss': found nan, a number is needed"),
        ("sigma,loss\n2,inf\n", "line 2, column 'loss': found inf, a number is needed"),
        ("sigma,loss\n0,1\n", "line 2, column 'sigma': found 0, a noise scale is above 0"),
        ("sigma,loss\n1,-1\n", r"found -1, J\* is a mean square, 0 or above"),
        ("sigma,loss\n2,1\n1,1\n2,1\n", "line 4, .* found 2, every noise scale may appear once"),
        ("sigma,loss\n2,1\n", r"curve.json: correlation has shape \(2, 2\), the curve has 1 noise"),
    ],
)
def test_bad_tables_end_in_one_sentence(rows, words, tmp_path):
    (tmp_path / "curve.csv").write_text(rows)
    write_json(tmp_path / "curve.json", {"correlation": np.ones((2, 2))})
    with pytest.raises(JstarError, match=words):
        read_curve(tmp_path / "curve.csv")


def test_the_fingerprint_names_what_is_written(tmp_path):
    columns = np.sort(np.random.default_rng(0).random((5, 5)))
    curve = OptimalLoss(*columns, correlation_SS=np.eye(5), form=("pair",) * 5, variance=1, dim=7)
    slightly = 1 + 1e-7 * (np.arange(5) == 3)
    others = [replace(curve, **{key: getattr(curve, key) * slightly})
              for key in ("sigma", "loss", "stderr")]  # fmt: skip
    for made in (curve, *others):
        made.write(tmp_path / "curve.csv", card_id="abc")
        read = read_curve(tmp_path / "curve.csv")
        assert read.fingerprint == made.fingerprint == read.origin["fingerprint"]
        assert (read.dim, read.origin["card_id"], read.form) == (7, "abc", curve.form)
    assert len({made.fingerprint for made in (curve, *others)}) == 4


def floor_of(layout, model):
    """What `jstar status` takes off a run's loss: its gap where the loss is 0."""
    write_json(layout.state(model, 0) / STATE_FILE, {"images": 1, "loss": 0.0})
    return -next(run.gap for run in study_status(layout) if run.run == f"{model}-s0")


@pytest.mark.parametrize("name", ["edm", "fm", "vp"])
def test_status_takes_off_the_optimal_training_loss(name, tiny_study, tmp_path):
    """E[weight J*] over the whole noise law, also above the curve: of a Gaussian by quadrature."""
    layout = Layout(Study.parse(tiny_study(train={"process": name})), tmp_path)
    curve = table(layout.curve, sigma=np.geomspace(0.01, 3, 200))
    proc = process(name)

    def integral(low, high):
        def slope(x):
            sigma = np.exp(x)
            return proc.law.density(sigma) * proc.weight(sigma) * gaussian(sigma)

        return quad(slope, np.log(low), np.log(high), limit=200, epsabs=1e-10)[0]

    assert curve.total(proc)[0] == pytest.approx(integral(0.01, 3), rel=1e-3)
    above = floor_of(layout, "d1") - curve.total(proc)[0]
    assert above == pytest.approx(integral(3, 1e6), rel=2e-3, abs=1e-6)


def test_everybody_is_told_the_same(tiny_study, tmp_path):
    """Within 1e-9: status, fits, figures, theory, the noise law and the diagnosis."""
    grid = {"min": 0.02, "max": 101, "count": 6}  # the noise law of VE lies inside
    study = Study.parse(tiny_study(sigmas=grid, train={"process": "ve"}))
    layout = Layout(study, tmp_path)
    prepare(study.dataset, layout.data)
    write_curve(study, layout.data, layout.curve)
    curve = read_curve(layout.curve)
    places = [(n, f) for n in np.geomspace(1e5, 1e7, 3) for f in np.geomspace(1e12, 1e15, 8)]
    losses = pd.DataFrame(
        [(f"n{n:.0f}", f"n{n:.0f}", n, f, sigma, loss + 0.1 * (n**-0.2 + (f / n) ** -0.2))
         for n, f in places for sigma, loss in zip(curve.sigma, curve.loss, strict=True)],
        columns=["run", "model", "params", "flops", "sigma", "loss"],
    )  # fmt: skip
    write_table(tmp_path / "losses.csv", losses, {})
    fits = write_fits([tmp_path / "losses.csv"], layout.curve, layout.fits, config=study.fit,
                      process=study.process)  # fmt: skip
    fitted = {scale.sigma: scale.points.optimal for scale in fits.scales}
    tables = load_tables(layout.fits, layout.curve, None)
    theory = read_data_facts(layout.curve, None, None).optimal
    law = OptimalWeight(curve, OptimalLossNoise(law="optimal_loss"), 0.5).optimal
    draws = DrawOptions(grid["min"], grid["max"], grid["count"], queries=16)
    truth = open_truth(layout.data, layout.curve.parent, prepared=tmp_path, conditional=False,
                       draws=draws)  # fmt: skip

    def agree(value, expected):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=0)

    frame = pd.read_csv(layout.curve)
    agree([fitted[sigma] for sigma in frame["sigma"]], frame["loss"])
    agree(truth.optimal_S, frame["loss"])
    between = np.sqrt(curve.sigma[1:] * curve.sigma[:-1])
    cubic = PchipInterpolator(np.log(frame["sigma"]), frame["loss"])
    for sigma, expected in ((curve.sigma, frame["loss"]), (between, cubic(np.log(between)))):
        for told in (theory(sigma), law(sigma), [tables.optimal(s) for s in sigma]):
            agree(told, expected)
    rows = tables.losses[tables.losses["sigma"] != "total"].astype({"sigma": float})
    agree(rows["gap"], rows["loss"] - rows["sigma"].map(fitted))
    agree(floor_of(layout, "d1"), fitted["total"])
