"""The noise law that follows the gap: its formula, its estimate of the gap, its draws."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from jstar.config import OptimalLossNoise, Study
from jstar.curve import read_curve
from jstar.data import open_dataset
from jstar.errors import JstarError
from jstar.noise import process
from jstar.optimal import posterior_mean
from jstar.records import read_json, sealed, write_json, write_table
from jstar.train.control import LinearControl
from jstar.train.optimal_noise_law import OptimalLossNoiseLaw, OptimalWeight
from jstar.train.parallel import Ranks
from jstar.train.stream import Stream

LAW = {"law": "optimal_loss"}
ONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def make(digits, curve):
    """`make(name, **noise)`: the optimal-loss noise law and the stream that draws with it."""

    def build(name="edm", seed=0, **noise):
        dataset = open_dataset(digits)
        config = OptimalLossNoise(**LAW, **noise)
        base = process(name)
        law = OptimalLossNoiseLaw(config, base, 0.5, read_curve(curve), dataset, ONE.device)
        return law, Stream(dataset, law, seed, batch=64)

    return build


def test_the_weight_is_the_formula(curve):
    optimal = read_curve(curve)
    noise = OptimalLossNoise(law="optimal_loss", a=0.2, w_max=3, mu=-1.5, s=0.8)
    weight = OptimalWeight(optimal, noise, sigma_data=0.5)
    assert 0.2 < optimal.critical_sigma < 1
    for sigma in (0.06, 0.15, 0.9, 3.0, 15.0):
        unit = sigma**2 * 0.25 / (sigma**2 + 0.25)
        j = float(optimal.at(sigma)[0][0]) / unit
        bell = np.exp(-((np.log(sigma) + 1.5) ** 2) / (2 * 0.64)) / (0.8 * np.sqrt(2 * np.pi))
        cap = 3 * unit / 0.25
        expected = 0.2 * min(1 / j if j > 0 else cap, cap)
        expected += bell * (sigma < optimal.critical_sigma)
        assert weight(np.array([sigma]))[0] == pytest.approx(expected, rel=1e-9)
        as_tensor = weight(torch.tensor([sigma], dtype=torch.float64))
        assert float(as_tensor) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["edm", "fm", "vp"])
def test_weights_have_mean_one_under_the_own_law_and_reach_the_loss(name, make):
    law, stream = make(name)
    own = process(name).law.density(law.centres)
    assert float(own @ law.weight(law.centres) / own.sum()) == pytest.approx(1)
    chunk = stream.chunk(0, 4)
    sigma = chunk.log_sigma.double().exp().flatten()
    weight = law.weight(sigma.clip(law.edges[0], law.edges[-1]))
    # The loss is weight x network's error; in units of the x0 loss that must be w / unit.
    wanted = weight / law.weight.unit(sigma)
    torch.testing.assert_close(
        (chunk.weight / chunk.to_x0).flatten().double(), wanted, rtol=1e-4, atol=0
    )


def test_the_control_has_mean_zero_and_explains_the_loss_at_large_noise(digits):
    dataset = open_dataset(digits)
    control = LinearControl(dataset, ONE.device)
    images = torch.from_numpy(dataset.scaled(slice(None)))
    generator = torch.Generator().manual_seed(0)
    spread = {}
    for sigma in (0.3, 2.0, 15.0):
        scale = torch.full((len(images), 1), sigma)
        means, plain, left = [], [], []
        for _ in range(40):  # every image once a round: the mean over the data is exact
            eps = torch.randn(images.shape, generator=generator)
            value = control(images, eps, scale)
            means.append(float(value.mean()))
            clean, noisy = (x.flatten(1).numpy() for x in (images, images + sigma * eps))
            error = np.square(posterior_mean(noisy, clean, sigma) - clean).mean(1)
            plain.append(error.std())
            left.append((error - value.numpy()).std())
        error_of_mean = np.std(means, ddof=1) / np.sqrt(len(means))
        assert abs(np.mean(means)) < 4 * error_of_mean + 1e-6
        spread[sigma] = np.mean(plain) / np.mean(left)
    assert spread[15.0] > 30
    assert spread[2.0] > 1.5


def known_gap(law, stream, wrong, chunks=24, steps=16):
    """Feed the errors of a denoiser that is the posterior mean and a checkerboard of `wrong`."""
    dataset = stream.dataset
    board = torch.ones(8, 8)
    board[::2, ::2] = board[1::2, 1::2] = -1
    images = torch.from_numpy(dataset.scaled(slice(None)))
    for k in range(chunks):
        start, stop = k * steps, (k + 1) * steps
        chunk = stream.chunk(start, stop)
        index = np.arange(start * 64, stop * 64)
        x0 = torch.from_numpy(dataset.scaled(stream.data_index(index)))
        sigma = chunk.log_sigma.flatten().exp()
        x = chunk.x_in.flatten(0, 1) / law.process.c_in(sigma).view(-1, 1, 1, 1)
        logits = x.flatten(1) @ images.flatten(1).T - images.flatten(1).square().sum(1) / 2
        best = torch.softmax(logits.double() / sigma[:, None].double() ** 2, 1).float()
        denoised = best @ images.flatten(1) + wrong(sigma)[:, None] * board.flatten()
        error = (denoised - x0.flatten(1)).square().mean(1)
        law.follow(chunk, (error / chunk.to_x0.flatten()).view(chunk.to_x0.shape), 64 * stop, ONE)


@pytest.mark.parametrize("name", ["edm", "fm"])
def test_the_gap_of_a_known_denoiser_is_found_and_followed(name, make):
    law, stream = make(name, share=0.5, memory=0.4)
    known_gap(law, stream, lambda s: 0.1 * s / (1 + s))
    centres = law.centres
    truth = (0.1 * centres / (1 + centres)) ** 2 / law.weight.unit(centres)
    large = centres > 3  # there the gap is at most 4 % of the loss
    assert law.gap == pytest.approx(truth, rel=0.5, abs=0.02)
    assert float(law.gap[large].mean()) == pytest.approx(float(truth[large].mean()), rel=0.15)
    wanted = law.weight(centres) * law.gap
    expected = 0.5 * wanted / wanted.sum() + 0.5 / len(centres)
    width = np.diff(np.log(law.edges))
    assert law.process.law.density(centres) * width == pytest.approx(expected)


def test_the_control_is_worth_having(make):
    """Without it the gap at large noise scales drowns in the spread of the data."""
    errors = {}
    for kept in (True, False):
        law, stream = make(share=1, memory=0.4)
        if not kept:
            law.control = None
        known_gap(law, stream, lambda s: 0.1 + 0 * s)
        large = law.centres > 5
        truth = 0.1**2 / law.weight.unit(law.centres[large])
        errors[kept] = np.sqrt(np.mean((law.gap[large] - truth) ** 2))
    assert errors[True] < 0.25 * errors[False]


def test_draws_follow_the_law_and_depend_only_on_seed_index_and_state(make):
    law, stream = make(share=0.3)
    law.sums[:, 1] = law.sums[:, 0] * torch.linspace(0, 2, 32, dtype=torch.float64)
    law._renew()
    chunk = stream.chunk(0, 64)
    count = np.histogram(chunk.log_sigma.flatten(), np.log(law.edges))[0]
    share = law.process.law.density(law.centres) * np.diff(np.log(law.edges))
    assert count / count.sum() == pytest.approx(share, abs=4 * np.sqrt(0.06 / count.sum()))
    late = stream.chunk(40, 64)
    torch.testing.assert_close(late.log_sigma, chunk.log_sigma[40:])
    halves = [Stream(stream.dataset, law, 0, batch=64, rank=r, world=2) for r in (0, 1)]
    both = torch.cat([half.chunk(0, 64).log_sigma for half in halves], 1)
    torch.testing.assert_close(both, chunk.log_sigma)


def test_dropped_labels_and_broken_losses_do_not_count(make):
    law, stream = make()
    chunk = stream.chunk(0, 8)
    labels = torch.zeros(8, 64, dtype=torch.long)
    labels[:, 32:] = stream.dataset.card.classes
    labelled = replace(chunk, labels=labels)
    error = torch.ones(8, 64)
    error[:, 32:] = 1e6
    error[0, 0] = torch.nan
    law.follow(labelled, error, 512, ONE)
    assert float(law.sums[:, 0].sum()) == pytest.approx(8 * 32 - 1)
    assert law.gap.max() < 2


def test_a_run_follows_its_gap_and_says_so(run_tiny, curve):
    status, folder = run_tiny(model="d2", curve=curve, train={"noise": {**LAW, "share": 0.2}})
    assert status.finished
    table = pd.read_csv(folder / "out" / "noise_law.csv")
    assert list(table) == ["images", "sigma", "weight", "gap", "density", "draws"]
    last = table[table["images"] == 6400]
    assert len(last) == 32
    width = np.log(last["sigma"]).diff().mean()
    assert (last["density"] * width).sum() == pytest.approx(1, abs=1e-6)
    assert (last["density"] * width).min() >= 0.2 / 32 - 1e-9
    first = table[table["images"] == table["images"].min()]
    large = (last["sigma"] > 2).to_numpy()
    assert last["gap"][large].mean() < 0.7 * first["gap"][large].mean()  # it learned, and was seen
    info = json.loads((folder / "state" / "state.json").read_text())
    assert 0 < info["floor"] < info["loss"]


def test_what_does_not_fit_is_refused(run_tiny, curve, digits, tmp_path):
    with pytest.raises(JstarError, match=r"curve.csv: is not there.*jstar optimal"):
        run_tiny(train={"noise": LAW})
    foreign = tmp_path / "curve.csv"
    foreign.write_bytes(curve.read_bytes())
    facts = json.loads(curve.with_suffix(".json").read_text())
    write_json(foreign.with_suffix(".json"), sealed({**facts, "card_id": "another"}))
    with pytest.raises(JstarError, match=r"belongs to training distribution .* to another"):
        run_tiny(curve=foreign, train={"noise": LAW})
    assert not (tmp_path / "run" / "out").exists()


def test_another_curve_does_not_continue_a_run(run_tiny, curve, tmp_path):
    train = {"noise": LAW, "time_budget_minutes": 1e-9}
    assert not run_tiny(curve=curve, train=train)[0].finished
    other = tmp_path / "curve.csv"
    frame = pd.read_csv(curve)
    frame["loss"] *= 1.01
    write_table(other, frame, read_json(curve.with_suffix(".json")))
    with pytest.raises(JstarError, match="holds a run of another configuration .curve was"):
        run_tiny(curve=other, train=train)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"noise": {"law": "optimal"}}, ["train.noise.law", "did you mean 'optimal_loss'"]),
        ({"noise": {**LAW, "share": 0}}, ["train.noise.share = 0"]),
        ({"noise": {**LAW, "memory": 0.5}}, ["train.noise.memory = 0.5"]),
        ({"noise": LAW, "process": "edm2"}, ["edm2", "learns its weight"]),
        ({"noise": LAW, "min_snr_gamma": 5}, ["min_snr_gamma", "both set the weight"]),
    ],
)
def test_mistakes_in_the_study_are_one_sentence(train, words, tiny_study):
    with pytest.raises(JstarError) as caught:
        Study.parse(tiny_study(train=train))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_runs_without_the_law_keep_their_fingerprint(tiny_study):
    plain = Study.parse(tiny_study())
    assert 'noise":' not in plain.content("train", "d1")
    tree = tiny_study(train={"noise": LAW})
    assert "optimal_loss" in Study.parse(tree).content("train", "d1")
    tree = tiny_study()
    tree["ladder"][0]["variant"] = {"process": "fm", "noise": LAW}
    study = Study.parse(tree)
    assert study.train_of("d1").noise == OptimalLossNoise(**LAW)
    assert study.train_of("d2").noise is None
