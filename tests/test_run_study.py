"""`jstar study`: what it says while it runs and at the end, and what its plan counts."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from jstar.config import Study
from jstar.data import prepare
from jstar.layout import Layout
from jstar.run_study import Jobs, _command, _forwarding, study_line
from jstar.scaling.summary import verdict_table
from jstar.stage_costs import FIGURE, START, StageCost, seconds_of, stage_costs, stage_table
from jstar.train.status import STATE_FILE

SAID = """\
Select jobs to execute...
[Sun Nov 29 16:42:31 2026]
localrule train_d2:
    input: card.json
    jobid: 10
rule optimal:
    jobid: 2
localrule figures:
    jobid: 7
Finished jobid: 2 (Rule: optimal)
1 of 22 steps (5%) done
"""


def test_the_jobs_that_run_are_read_as_they_are_printed(tmp_path):
    log = tmp_path / "study.log"
    log.write_text(SAID[:-10])
    jobs = Jobs(log)
    jobs.update()
    assert jobs.running == {"10": "train_d2", "7": "figures"}
    assert (jobs.done, jobs.total) == (0, 0)  # that line is not whole yet
    with log.open("a") as file:
        file.write(SAID[-10:])
        file.write("localrule train_d1:\n    jobid: 11\nError in rule train_d2:\n    jobid: 10\n")
    jobs.update()
    assert (jobs.done, jobs.total) == (1, 22)
    assert jobs.running == {"7": "figures", "11": "train_d1"}
    assert jobs.stages == "figures, train"


@pytest.fixture
def layout(tiny_study, tmp_path):
    """A prepared tiny study; a run of d2 has begun, at a speed that is known."""
    made = Layout(Study.parse(tiny_study()), tmp_path / "results")
    prepare(made.study.dataset, made.data)
    state = made.state("d2", 0)
    state.mkdir(parents=True)
    facts = {"images": 3200, "loss": 0.5, "images_per_second": 400.0, "time": 0.0}
    (state / STATE_FILE).write_text(json.dumps(facts))
    return made


def test_one_line_for_the_whole_study(layout, tmp_path):
    log = tmp_path / "study.log"
    log.write_text(SAID)
    jobs = Jobs(log)
    jobs.update()
    line = study_line(layout, jobs, 2)
    assert line.startswith("tiny  train, figures  0/3 runs  1/22 jobs")
    clock = line.split()[-2].split(":")
    seconds = int(clock[0]) * 60 + int(clock[1])
    faster = study_line(layout, jobs, 4).split()[-2].split(":")
    # 3 runs of 6,400 images: half of d2 at 400 images/s alone is 8 s; figures and fits come after.
    assert 8 + FIGURE < seconds < 120
    assert int(faster[0]) * 60 + int(faster[1]) < seconds
    (layout.state("d2", 0) / STATE_FILE).unlink()
    assert "left" not in study_line(layout, jobs, 2)  # no speed is known


def test_before_the_images_are_there_the_line_says_so(tiny_study, tmp_path):
    log = tmp_path / "study.log"
    log.write_text("")
    jobs = Jobs(log)
    jobs.update()
    assert study_line(Layout(Study.parse(tiny_study()), tmp_path), jobs, 1) == "tiny  starts"


def test_stages_beside_one_another_fill_the_cores():
    def cost(stage, phase, *jobs):
        return StageCost(stage, phase, len(jobs), sum(jobs), max(jobs))

    costs = [cost("prepare", 0, 4.0), cost("optimal", 1, 20.0), cost("train", 1, 10.0, 30.0)]
    assert seconds_of(costs, 1) == 4 + 60
    assert seconds_of(costs, 2) == 4 + 30
    assert seconds_of(costs, 100) == 4 + 30  # the longest run is one job; J* is shared out
    assert "1:04 from the images to the report, on 1 cores" in stage_table(costs, 1, gpus=False)


def test_the_plan_counts_every_stage(tiny_study, tmp_path):
    """Twice the measured snapshots cost twice as much, and so on: each stage by its own size."""

    def costs(**changes):
        study = Study.parse(tiny_study(**changes))
        speeds = dict.fromkeys(("d1", "d2"), 1e6)
        args = (256, (1, 8, 8), [5.0, 5.0, 9.0], [], speeds, 1e9)
        return {c.stage: c for c in stage_costs(Layout(study, tmp_path), *args)}

    plain = costs()
    assert list(plain) == ["prepare", "optimal", "tune", "train", "evaluate", "fit", "figures"]
    assert plain["train"].seconds == 19
    assert (plain["tune"].jobs, plain["evaluate"].jobs) == (0, 3)
    more = costs(evaluate={"queries": 128}, sigmas={"min": 0.05, "max": 20, "count": 12})
    start = 3 * START
    assert more["evaluate"].seconds - start == pytest.approx(
        4 * (plain["evaluate"].seconds - start)
    )
    assert more["fit"].seconds > 1.5 * plain["fit"].seconds
    assert costs(resources={"train_threads": 2})["train"].seconds == 38


def test_plan_takes_the_cores_of_another_machine(jstar, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("jstar.plan._matrix_rate", lambda: 5e10)
    study = ("plan", "--config", "config/variants-fashion.yaml", "--cores")
    text = {cores: jstar(*study, cores)[1] for cores in (1, 8)}
    assert "on 8 cores" in text[8]
    assert text[1] != text[8]
    status, _, err = jstar(*study, 0)
    assert (status, err) == (2, "jstar: --cores = 0 is not allowed, at least 1 is needed\n")


def test_a_signal_reaches_the_job_and_what_it_started():
    """One signal for the whole group, as from a keyboard; the handler before it comes back."""
    inner = "import subprocess as s; print(s.Popen(['sleep', '60']).pid, flush=True); s.os.wait()"
    before = signal.getsignal(signal.SIGTERM)
    with (
        subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE, text=True,
                         start_new_session=True) as job,
        _forwarding(job) as came,
    ):  # fmt: skip
        child = int(job.stdout.readline())
        signal.raise_signal(signal.SIGTERM)
        assert job.wait(10) == -signal.SIGTERM
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True,
                               text=True, check=False).stdout.strip()  # fmt: skip
        if state in ("", "Z"):
            return
        time.sleep(0.05)
    pytest.fail(f"sleep {child} is still there: {state}")


def test_the_verdict_table_says_what_the_tables_say():
    folder = ROOT / "results/reference/digits"
    lines = verdict_table(folder)
    verdicts = pd.read_csv(folder / "verdicts.csv")
    rows = lines[1 : 1 + len(verdicts)]
    assert [row.split()[1] for row in rows] == verdicts["verdict"].tolist()
    laws = pd.read_csv(folder / "approaches.csv").query("approach == 'joint'").set_index("sigma")
    for row, sigma in zip(rows, verdicts["sigma"], strict=True):
        law = laws.loc[sigma]
        assert (law["status"] in row) == (law["status"] != "converged")
        if law["status"] == "converged":
            alpha = float(row.split("[")[0].split()[-1].replace("−", "-"))
            assert np.isclose(alpha, law["alpha"], atol=0.01)
    assert any(line.startswith("total: undecided; it would be 'above', but") for line in lines)


def test_the_cores_of_this_machine_say_nothing_of_a_cluster(tmp_path):
    def cores(given, profile):
        words = _command(tmp_path / "s.yaml", given, profile, ())
        return words[words.index("--cores") + 1] if "--cores" in words else None

    (tmp_path / "config.v8+.yaml").write_text("executor: local\n")
    assert cores("all", None) == cores("all", str(tmp_path)) == "all"
    assert cores("3", "slurm") == "3"
    assert cores("all", "slurm") is None
    (tmp_path / "config.v8+.yaml").write_text("jobs: 4\nexecutor: lsf\n")
    assert cores("all", str(tmp_path)) is None
