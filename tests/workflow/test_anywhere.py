"""The tiny study from an empty folder: by `jstar study`, by `snakemake -s -d`, as a module.

One study is run whole, interrupted on its way; the other two ways get a copy of what it left, see
that nothing is to be done there, and make what is taken away.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import ROOT, TINY, environment, images_seen, warmed

from jstar.records import read_json

STUDY = "results/studies/tiny"
HOST = """
module jstar:
    snakefile: "{root}/Snakefile"
    config: config["tiny"]

use rule * from jstar as jstar_*

rule mine:
    default_target: True
    input: rules.jstar_all.input
    output: "mine.txt"
    shell: "wc -l {study}/verdicts.csv > {{output}}"
"""


def run(folder, *command):
    """A command in a folder that is no checkout: exit status and all that it printed.

    `jstar study` starts as it does for users; its jobs as in the other tests of the workflow.
    """
    program, *arguments = map(str, command)
    start = [sys.executable, "-m", program] if program == "jstar" else [warmed() / program]
    done = subprocess.run(
        [*start, *arguments], cwd=folder, env=environment(ROOT, warmed()),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def interrupted(folder):
    """`jstar study` in a terminal's way: Ctrl-C once a run has begun. What it printed.

    Its jobs, too, start as they do for users.
    """
    job = subprocess.Popen(
        [sys.executable, "-m", "jstar", "study", "tiny.yaml", "--cores", "2"], cwd=folder,
        env=environment(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    states = [folder / f"results/state/tiny/d{k}-s0" for k in (1, 2)]
    deadline = time.monotonic() + 500
    while not any(images_seen(state) > 0 for state in states):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    text, _ = job.communicate(timeout=60)
    assert job.returncode == 130, text
    for state in filter(lambda state: (state / "lock").is_file(), states):
        with pytest.raises(ProcessLookupError):
            os.kill(int((state / "lock").read_text()), 0)
    return text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An empty folder in which `jstar study` made everything; and what it said, both times."""
    folder = tmp_path_factory.mktemp("anywhere")
    shutil.copy(TINY, folder)
    first = interrupted(folder)
    status, last = run(folder, "jstar", "study", "tiny.yaml", "--cores", 2)
    assert status == 0, last
    return folder, first, last


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that folder, as if the next command had made it."""
    return shutil.copytree(finished[0], tmp_path / "study", dirs_exist_ok=True)


def test_jstar_study_goes_on_and_ends_with_the_verdicts_and_the_page(finished):
    folder, first, last = finished
    assert "jstar: interrupted; what was finished is kept" in first
    assert "Traceback" not in first + last
    assert f"report: {STUDY}/report.html" in last
    assert (folder / STUDY / "report.html").is_file()
    for word in ("sigma", "verdict", "total: undecided; 2 sizes, a joint law needs 3"):
        assert word in last
    assert "3/3 runs" in last  # the line for the whole study, as a log has it
    assert {path.name for path in folder.iterdir()} <= {"tiny.yaml", "results", ".snakemake"}


def test_optimal_loss_comes_first_and_a_run_need_not_wait_for_it(finished):
    folder = finished[0]
    logs = sorted((folder / ".snakemake/log").glob("*.log"))  # the interrupted call's is the first
    text = "".join(path.read_text() for path in logs)
    started = [line for line in text.splitlines() if line.startswith("localrule ")]
    # Both begin at once, on a core each; Snakemake logs jobs of one batch in no certain order.
    assert started[:1] == ["localrule prepare:"]
    assert set(started[1:3]) == {"localrule optimal:", "localrule train_d2:"}
    before = text.split(started[2])[0]
    assert "(Rule: optimal)" not in before
    assert "(Rule: train_d2)" not in before


def test_snakemake_from_elsewhere(copied, tmp_path):
    command = ["snakemake", "-s", ROOT / "Snakefile", "-d", copied, "--configfile",
               copied / "tiny.yaml", "--cores", 2]  # fmt: skip
    status, text = run(tmp_path, *command, "-n")
    assert status == 0, text
    assert "Nothing to be done" in text
    (copied / STUDY / "notebooks/inspect_fits.html").unlink()
    status, text = run(tmp_path, *command)
    assert status == 0, text
    assert (copied / STUDY / "notebooks/inspect_fits.html").is_file()
    assert (copied / STUDY / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_as_a_module_of_another_workflow(copied):
    (copied / "Snakefile").write_text(HOST.format(root=ROOT, study=STUDY))
    lines = TINY.read_text().splitlines()
    (copied / "host.yaml").write_text("tiny:\n" + "".join(f"  {line}\n" for line in lines))
    shutil.rmtree(copied / STUDY)
    (copied / "results/runs/tiny/d1-s0/losses.csv").unlink()
    # The repository's profile says so of its own workflow: a change of code reruns nothing.
    command = ("--rerun-triggers", "mtime", "params", "input")
    status, text = run(copied, "snakemake", "--configfile", "host.yaml", "--cores", 2, *command)
    assert status == 0, text
    assert text.count("localrule jstar_evaluate:") == 1
    assert "jstar_train" not in text
    assert "localrule jstar_report:" in text
    assert (copied / "mine.txt").is_file()
    (config,) = (copied / STUDY / "config").iterdir()
    assert read_json(config)["study"] == "tiny"


def test_a_wrong_module_is_named(tmp_path):
    (tmp_path / "Snakefile").write_text(HOST.format(root=ROOT, study=STUDY))
    (tmp_path / "host.yaml").write_text("tiny: {studdy: tiny}\n")
    status, text = run(tmp_path, "snakemake", "--configfile", "host.yaml", "--cores", 1, "-n")
    assert status != 0
    sentences = [line for line in text.splitlines() if line.startswith("jstar:")]
    assert len(sentences) == 1
    assert "module jstar" in sentences[0]
    assert "'studdy'" in sentences[0]


def test_what_failed_is_one_sentence(tmp_path):
    """A job that fails: its sentence, the exit status of a mistake, and where all of it stands."""
    shutil.copy(TINY, tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/state").write_text("in the way")
    status, text = run(tmp_path, "jstar", "study", "tiny.yaml", "--cores", 1)
    assert status == 2, text
    assert text.count("jstar:") == 1
    assert "results/state/tiny" in text
    assert "results/studies/tiny/logs/study.log" in text


def test_after_a_power_cut_the_study_goes_on_by_itself(copied):
    """Everything is killed at once: Snakemake's lock stays, and only `jstar study` may know why."""
    command = [sys.executable, "-m", "jstar", "study", "tiny.yaml", "--cores", "2"]
    (copied / STUDY / "report.html").unlink()
    job = subprocess.Popen(
        command, cwd=copied, env=environment(ROOT), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    locks, deadline = copied / ".snakemake/locks", time.monotonic() + 200
    while not any(locks.glob("*")):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (snakemake,) = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    job.kill()
    os.killpg(int(snakemake), signal.SIGKILL)
    job.wait()
    assert any(locks.glob("*"))

    status, text = run(copied, "jstar", "study", "tiny.yaml", "--cores", 2)
    assert status == 0, text
    assert (copied / STUDY / "report.html").is_file()
    assert (copied / ".snakemake/jstar_study.lock").read_text() == ""


def test_a_lock_of_another_snakemake_is_named_and_left(copied):
    (copied / STUDY / "report.html").unlink()
    locks = copied / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text(f"{STUDY}/report.html\n")
    status, text = run(copied, "jstar", "study", "tiny.yaml", "--cores", 2)
    assert status == 2, text
    assert "is locked by another Snakemake; where none runs any more: snakemake --unlock" in text
    assert (locks / "0.output.lock").is_file()
