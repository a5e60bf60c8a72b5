"""What goes wrong in long runs: damage, NaN, full disks, two jobs at once, kills."""

import multiprocessing
import os
import sys
import time

import numpy as np
import pytest
import torch

from jstar.config import Study
from jstar.errors import JstarError
from jstar.records import read_json, read_table
from jstar.train import checkpoint, loop, optimizer, tensor_file, train
from jstar.train.parallel import Ranks
from jstar.train.run import CHECKPOINTS, Run
from jstar.train.status import hold_state
from jstar.train.stop import Stop

EVERY_CHUNK = {"checkpoint_images": 1}


def stop_at(monkeypatch, steps):
    """Let runs end with an exception at these steps, once each, after their checkpoint."""
    save, left = Run.save, list(steps)

    def stopping(self):
        save(self)
        if left and self.step >= left[0]:
            left.pop(0)
            raise InterruptedError

    monkeypatch.setattr(Run, "save", stopping)


def checkpoints(folder):
    return sorted((folder / "state" / CHECKPOINTS).glob("*.safetensors"))


def test_two_checkpoints_are_kept(run_tiny, monkeypatch, tmp_path):
    stop_at(monkeypatch, [40])
    with pytest.raises(InterruptedError):
        run_tiny(train=EVERY_CHUNK)
    assert len(checkpoints(tmp_path / "run")) == 2


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "no marker", "half a marker"])
def test_a_damaged_newest_checkpoint_falls_back(
    damage, run_tiny, contents, monkeypatch, tmp_path, capsys
):
    _, calm = run_tiny("calm")
    stop_at(monkeypatch, [40])
    with pytest.raises(InterruptedError):
        run_tiny(train=EVERY_CHUNK)
    newest = checkpoints(tmp_path / "run")[-1]
    data = bytearray(newest.read_bytes())
    if damage == "flipped bit":
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
    elif damage == "cut short":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "no marker":
        newest.with_suffix(".json").unlink()
    else:
        marker = newest.with_suffix(".json")
        marker.write_text(marker.read_text()[:20])
    status, folder = run_tiny(train=EVERY_CHUNK)
    assert status.finished
    assert contents(calm) == contents(folder)
    if damage != "no marker":
        assert newest.stem in capsys.readouterr().err


def poison(monkeypatch, steps, *, data=False):
    """Make the gradient of these steps NaN; with `data` of what is trained on at these steps."""
    gradient = loop._gradient

    def poisoned(run, chunk, k, error_B):
        if run.step + (run.leap if data else 0) in steps:
            chunk.target[k, 0] = float("nan")
        gradient(run, chunk, k, error_B)

    monkeypatch.setattr(loop, "_gradient", poisoned)


def test_two_steps_that_are_not_finite_are_skipped(run_tiny, monkeypatch, capsys):
    poison(monkeypatch, {10, 11})
    status, folder = run_tiny()
    assert status.finished
    assert "skipped a step before image" in capsys.readouterr().err
    assert read_json(folder / "out" / "run.json")["skipped_steps"] == 2
    table = read_table(folder / "out" / "telemetry.csv")
    assert table["count"].sum() == 6400 - 2  # one image of each poisoned step has no loss
    assert np.isfinite(table["loss"][table["count"] > 0]).all()


def test_after_three_in_a_row_it_goes_back_and_leaves_their_data_out(run_tiny, monkeypatch, capsys):
    poison(monkeypatch, {50, 51, 52}, data=True)
    status, folder = run_tiny(train=EVERY_CHUNK)
    assert status.finished
    info = read_json(folder / "out" / "run.json")
    assert info["rollbacks"] == 1
    assert 1 <= info["left_out_steps"] <= 20
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1
    assert f"the data of {info['left_out_steps']} steps are left out" in said[0]
    assert info["images"] == 6400
    table = read_table(folder / "out" / "telemetry.csv")
    # Bad steps before the checkpoint count; those after it are forgotten, others came instead.
    assert table["count"].sum() == 6400 - info["skipped_steps"]


def test_bad_steps_without_a_checkpoint_end_the_run(run_tiny, monkeypatch):
    poison(monkeypatch, {4, 5, 6})
    with pytest.raises(JstarError, match="cannot be rolled back, no checkpoint is there"):
        run_tiny()


def test_many_bad_steps_of_a_thousand_are_too_many_too(run_tiny, monkeypatch):
    monkeypatch.setattr(loop, "FEW", 3)
    poison(monkeypatch, {20, 30, 40, 50, 60})
    with pytest.raises(JstarError, match="cannot be rolled back"):
        run_tiny()


def test_the_gradient_norm_is_told_and_a_spike_is_said(run_tiny, monkeypatch, capsys):
    step = optimizer.Optimizer.step

    def spiked(self, rate):
        if self.health[0] == 0 and len(steps) == 70:
            for weight in self.weights:
                weight.grad *= 1e4
        steps.append(rate)
        step(self, rate)

    steps = []
    monkeypatch.setattr(optimizer.Optimizer, "step", spiked)
    _, folder = run_tiny()
    speed = read_table(folder / "out" / "speed.csv")
    assert (speed["gradient_norm"] <= speed["gradient_norm_max"]).all()
    assert speed["gradient_norm_max"].max() > 100 * speed["gradient_norm_max"].median()
    assert (speed["skipped_steps"] == 0).all()
    assert capsys.readouterr().err.count("the gradient norm rose to") == 1


def test_the_fourth_time_ends_the_run_and_keeps_the_good_checkpoint(
    run_tiny, monkeypatch, tmp_path
):
    poison(monkeypatch, set(range(50, 100)))
    with pytest.raises(JstarError, match="4 steps had a loss .* 3 times already"):
        run_tiny(train=EVERY_CHUNK)
    newest, _ = checkpoint.load_newest(tmp_path / "run" / "state" / CHECKPOINTS)
    assert newest.facts["step"] >= 48
    assert all(t.isfinite().all() for name, t in newest.parts[0].items() if name != "records")


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    run_tiny, contents, monkeypatch, tmp_path
):
    _, calm = run_tiny("calm")
    written, write_atomically = [], tensor_file.write_atomically

    def full(path, write):
        written.append(path)

        def half(temporary):
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        write_atomically(path, half if len(written) == 20 else write)

    monkeypatch.setattr(tensor_file, "write_atomically", full)
    with pytest.raises(JstarError, match=r"cannot be written \(No space left on device\)"):
        run_tiny(train=EVERY_CHUNK)
    assert len(written) == 20  # nothing is written after an error
    assert not list((tmp_path / "run").rglob(".*"))
    _, folder = run_tiny(train=EVERY_CHUNK)
    assert contents(calm) == contents(folder)


def test_what_a_killed_process_was_writing_is_removed(run_tiny, tmp_path):
    half = tmp_path / "run" / "state" / CHECKPOINTS / ".000.x.safetensors"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    run_tiny()
    assert not half.exists()


def test_an_interrupted_run_says_that_it_is_saved(run_tiny, monkeypatch, capsys):
    monkeypatch.setattr("jstar.train.stop.Stop.reason", "SIGINT")
    status, folder = run_tiny()
    assert (status.finished, status.reason) == (False, "SIGINT")
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"train: out stopped (SIGINT) and saved after {status.images:,} of 6,400 images; the same "
        "command goes on from there"
    )
    assert list((folder / "state" / CHECKPOINTS).iterdir())


def test_of_a_run_that_never_began_nothing_is_left(tmp_path):
    (tmp_path / "a").mkdir()
    state = tmp_path / "a" / "b" / "c"
    with hold_state(state):
        assert (state / "lock").is_file()
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    with hold_state(state):
        (state / "x").write_text("")
    assert (state / "lock").is_file()


def test_a_second_process_is_refused(run_tiny, tmp_path):
    with (
        hold_state(tmp_path / "run" / "state"),
        pytest.raises(JstarError, match=f"process {os.getpid()} is training this run already"),
    ):
        run_tiny()


def train_quietly(study, data, folder, slow):
    """What a killed process was doing; `slow`: its files take a tenth of a second each."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    write_atomically = tensor_file.write_atomically

    def slowly(path, write):
        def halting(temporary):
            temporary.write_bytes(b"half")
            time.sleep(0.1)
            write(temporary)

        write_atomically(path, halting)

    if slow:
        tensor_file.write_atomically = slowly
    train(study, "d1", 0, data, folder / "out", folder / "state", device="cpu", threads=1)


@pytest.mark.parametrize("inside", [False, True], ids=["at random", "while a file is written"])
def test_killed_it_ends_the_same(inside, tiny_study, digits, tmp_path, contents):
    """Eight SIGKILLs (benchmarks/train_kill.py: thirty, under Snakemake too)."""
    study = Study.parse(tiny_study(train={"checkpoint_images": 1, "images": 25600}))
    context = multiprocessing.get_context("forkserver")  # imports torch once
    context.set_forkserver_preload(["jstar.train"])

    def start(name, *, slow=False):
        process = context.Process(
            target=train_quietly, args=(study, digits, tmp_path / name, slow)
        )  # fmt: skip
        process.start()
        return process

    calm = start("calm")
    calm.join()
    kills = 0
    for moment in np.random.default_rng(0).uniform(0.1, 0.6, 8):
        process = start("stormy", slow=inside)
        process.join(moment)
        while inside and process.is_alive() and not halves(tmp_path / "stormy"):
            time.sleep(0.005)
        kills += process.is_alive()
        process.kill()
        process.join()
        assert not inside or not process.exitcode or halves(tmp_path / "stormy")
    assert kills >= 4
    last = start("stormy")
    last.join()
    assert calm.exitcode == last.exitcode == 0
    assert contents(tmp_path / "calm") == contents(tmp_path / "stormy")


def halves(folder):
    """Files that are being written, or never were to the end."""
    return [path for path in folder.rglob(".*.safetensors") if path.stat().st_size == 4]


def test_deterministic_kernels_are_asked_for_and_only_within_the_run(run_tiny, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    gradient, asked = loop._gradient, []

    def watched(*args):
        asked.append(torch.are_deterministic_algorithms_enabled())
        gradient(*args)

    monkeypatch.setattr(loop, "_gradient", watched)
    run_tiny(train={"deterministic": True, "images": 640})
    assert asked
    assert all(asked)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_kind_of_device_is_said_and_recorded(run_tiny, monkeypatch, tmp_path, capsys):
    stop_at(monkeypatch, [40])
    with pytest.raises(InterruptedError):
        run_tiny(train=EVERY_CHUNK)
    here = Ranks(0, 1, torch.device("cpu")).kind
    monkeypatch.setattr(Ranks, "kind", "another CPU")
    _, folder = run_tiny(train=EVERY_CHUNK)
    said = [line for line in capsys.readouterr().err.splitlines() if "another device" in line]
    assert len(said) == 1
    assert f"was trained on {here} and goes on on another CPU" in said[0]
    assert read_json(folder / "out" / "run.json")["devices"] == [here, "another CPU"]


def test_a_job_leaves_before_its_time_limit_by_what_its_saves_take(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 100))
    told = Stop()
    assert told.reason is None
    told.saving = 70.0
    assert told.reason is None  # 20 seconds are left for the rest
    told.saving = 90.0
    assert told.reason == "time limit of the job"
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert Stop().reason is None
