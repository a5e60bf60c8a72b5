"""The float32 reference where there is no time for whole steps: the run's weights, a few images."""

import time
from dataclasses import asdict, replace

import pytest
import torch

from jstar.config import Study
from jstar.data import prepare
from jstar.rehearse.golden import FEWEST, golden, open_weights, opened_objective
from jstar.rehearse.orders import Orders, TrainReport
from jstar.rehearse.worker import _opening
from jstar.train.parallel import ALONE
from jstar.train.run import Run


@pytest.fixture
def begun(tmp_path, tiny_study):
    """(run after its opening steps, what it was told, what it tells of itself)."""
    learned = {"process": "edm2", "batch": 64}
    labels = {"model": {"class_drop": 0.1}, "optimal": {"estimator": "exact_by_class"}}
    study = Study.parse(tiny_study(train=learned, **labels))
    prepare(study.dataset, tmp_path / "data")
    (tmp_path / "d2").mkdir()
    orders = Orders(
        study.model_dump_json(), "d2", 3, str(tmp_path / "data"), None, str(tmp_path / "d2"), "cpu",
        1, 0.0, 0.0,
    )  # fmt: skip
    run = Run(study, "d2", 3, tmp_path / "data", orders.state, ALONE)
    open_weights(run)
    opened = [parameter.detach().clone() for parameter in run.named.values()]
    losses, norm, _ = _opening(run, orders)
    report = TrainReport(
        "CPU", "cpu", 1, 1, asdict(run.shape), asdict(run.cut), 0.0, 0.0, 1, 1.0, None, 0.0, losses,
        norm, 0.0, 0.0, 0.0, 0.0, 0.0, {},
    )  # fmt: skip
    return run, opened, orders, report


def test_its_weights_are_those_of_the_run(begun):
    run, opened, orders, report = begun
    own = list(opened_objective(report.load(run.study, "d2")[0], orders.seed).parameters())
    assert len(own) == len(opened)
    assert all(map(torch.equal, own, opened))
    assert all(weight.any() for weight in own)


def test_it_compares_what_there_is_time_for(begun, monkeypatch):
    run, _, orders, report = begun
    found = golden(orders, report)
    assert (found.images, found.whole) == (FEWEST, False)
    assert found.loss == pytest.approx(found.measured, rel=1e-5)
    monkeypatch.setattr("jstar.rehearse.golden._rate", lambda: 0.0)
    found = golden(replace(orders, golden_seconds=60.0), report)
    assert (found.images, found.whole) == (run.config.batch, False)
    assert found.loss == pytest.approx(found.measured, rel=1e-5)
    ahead, clock = time.perf_counter(), iter(range(1000))
    # Each look at the clock is a second later, two of them a pass: of 5 s 3 are left after the
    # first image, 1 after three more, none after the next three.
    monkeypatch.setattr(time, "perf_counter", lambda: ahead + next(clock))
    assert golden(replace(orders, golden_seconds=5.0), report).images == 1 + 3 + 3
    monkeypatch.undo()
    monkeypatch.setattr("jstar.rehearse.golden._rate", lambda: 1e15)
    found = golden(replace(orders, golden_seconds=1.0), report)
    assert (found.images, found.whole) == (run.config.batch, True)
    assert found.loss == pytest.approx(report.losses, rel=1e-5)
