"""Where the runs of a study stand."""

import re

import pytest

from jstar.config import Study
from jstar.data import prepare
from jstar.layout import Layout
from jstar.train import train
from jstar.train.run import Run
from jstar.train.status import hold_state, status_table, study_status


def test_every_state_of_a_run(tiny_study, tmp_path, monkeypatch):
    study = Study.parse(tiny_study())
    layout = Layout(study, tmp_path)
    prepare(study.dataset, layout.data)

    def run(model, seed):
        train(study, model, seed, layout.data, layout.run(model, seed),
              layout.state(model, seed), device="cpu", threads=1)  # fmt: skip

    assert {s.state for s in study_status(layout)} == {"waiting"}
    run("d1", 0)
    snapshot = Run.write_snapshot
    monkeypatch.setattr(
        Run, "write_snapshot", lambda self, k: 1 / 0 if k == 4 else snapshot(self, k)
    )
    with pytest.raises(ZeroDivisionError):
        run("d1", 1)
    with hold_state(layout.state("d2", 0)):
        finished, stopped, running = study_status(layout)
    assert [s.state for s in (finished, stopped, running)] == ["finished", "stopped", "running"]
    assert (finished.images, finished.total, finished.seconds_left) == (6400, 6400, 0)
    assert 0 < stopped.images < 6400
    assert stopped.seconds_left > 0
    assert set(stopped.wall_clock) == {"training", "saving", "compiling", "waiting"}
    assert min(stopped.wall_clock.values()) >= 0
    table = status_table([finished, stopped], [])
    told = re.search(
        r"wall-clock time of the runs.*: training (.*)%, saving (.*)%, compiling", table
    )
    spent = [run.wall_clock for run in (finished, stopped)]
    share = sum(s["training"] for s in spent) / sum(sum(s.values()) for s in spent)
    assert float(told[1]) == pytest.approx(100 * share, abs=0.051)
