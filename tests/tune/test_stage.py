"""Tuning one size: resumed byte for byte, its rate used by the runs, mistakes in one sentence."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import yaml

from jstar.config import Study
from jstar.data.check import check_study
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.plan import plan_study
from jstar.records import read_json, write_json, write_record
from jstar.train import loop, train
from jstar.train.run import Run
from jstar.train.status import study_status
from jstar.tune import tune_size, write_tuning
from jstar.tune.status import tune_status
from jstar.tune.trials import planned_images, prior_rate, trial_images, trial_study

SAVE_OFTEN = {"checkpoint_images": 1}


class KilledError(Exception):
    pass


def outcome(layout, model="d1"):
    """What must not depend on interruptions."""
    files = [layout.rate(model), layout.trials(model)]
    files += sorted(layout.tune_state(model).glob("*/telemetry.csv"))
    assert len(files) >= 5
    return [file.read_bytes() for file in files]


def test_tuning_resumed_after_a_crash_is_bitwise_equal(tuning, monkeypatch):
    calm, stormy = tuning("calm", train=SAVE_OFTEN), tuning("stormy", train=SAVE_OFTEN)
    tune_size(calm, "d1", device="cpu")
    save, saved = Run.save, []

    def crash(self):
        save(self)
        saved.append(self.images)
        if len(saved) in (2, 5, 7):
            raise KilledError

    monkeypatch.setattr(Run, "save", crash)
    for _ in range(3):
        with pytest.raises(KilledError):
            tune_size(stormy, "d1", device="cpu")
        assert not stormy.rate("d1").exists()
    assert tune_size(stormy, "d1", device="cpu").finished
    assert outcome(calm) == outcome(stormy)
    assert not list(stormy.tune_state("d1").glob("*/state"))  # only what is measured stays


def test_a_signal_asks_for_a_checkpoint_and_another_start(tuning, monkeypatch):
    calm, asked = tuning("calm"), tuning("asked")
    tune_size(calm, "d1", device="cpu")
    record, sent = loop._record, []

    def signalled(run, loss, writer):
        record(run, loss, writer)
        if run.step == 10:
            sent.append(run.step)
            if len(sent) == 2:  # in the second trial
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "_record", signalled)
    status = tune_size(asked, "d1", device="cpu")
    assert (status.finished, status.exit_code, status.reason) == (False, 75, "SIGTERM")
    assert [s.state for s in tune_status(asked)] == ["stopped", "waiting"]
    assert tune_size(asked, "d1", device="cpu").finished
    assert [s.state for s in tune_status(asked)] == ["finished", "waiting"]
    assert outcome(calm) == outcome(asked)


def test_trials_are_short_runs_at_a_constant_rate(tuning):
    layout = tuning("short", train={"ema": [0.05, 0.1]}, fit={"ema": 0.1})
    study = layout.study
    assert prior_rate(study, "d1") == pytest.approx(0.003 * 2**0.5)
    assert trial_images(study, "d1", 1.0, 64) == 1280
    long = trial_study(study, "d1", 0.02, 96, 1344)
    config = long.train_of("d1")
    assert (config.images, config.batch, config.ema) == (1344, 96, [0.1])
    assert config.learning_rate_width == 8
    warm = Study.parse(json.loads(study.model_dump_json()) | {
        "train": {**study.train.model_dump(), "warmup_images": 1000}
    })  # fmt: skip
    assert trial_images(warm, "d1", 1.0, 64) == 2048  # twice the warm-up, in whole batches
    tune_size(layout, "d1", device="cpu")
    trials = pd.read_csv(layout.trials("d1"))
    assert (trials["images"] == 1280).all()
    assert planned_images(study, "d1", 1.0) == 4 * 1280
    row = read_json(layout.trials("d1").with_suffix(".json"))["chosen"]
    assert row["loss"] - row["gap"] == pytest.approx(trials["loss"][0] - trials["gap"][0])
    assert row["loss"] <= trials["loss"].min() * (1 + 1e-9)


def test_the_chosen_rate_is_what_its_runs_train_with_and_depend_on(tuning):
    layout = tuning("used")
    untuned = layout.study.content("train", "d1")
    assert "learning_rate" not in json.loads(untuned)["train"]
    with pytest.raises(JstarError, match=r"rate.json: is not there.*'jstar tune --model d1'"):
        layout.tuned("d1")
    tune_size(layout, "d1", device="cpu")
    rate = read_json(layout.rate("d1"))
    assert set(rate) == {"learning_rate"}
    tuned = layout.tuned("d1")
    chosen = json.loads(tuned.study.content("train", "d1"))["train"]
    assert (chosen["learning_rate"], chosen["learning_rate_width"]) == (rate["learning_rate"], 8)
    assert tuned.study.tuned_models == ["d2"]

    def run():
        study, place = layout.tuned("d1").study, (layout.run("d1", 0), layout.state("d1", 0))
        train(study, "d1", 0, layout.data, *place, device="cpu", threads=1)
        return read_json(place[0] / "run.json")

    assert run()["config"] == json.loads(tuned.study.content("train", "d1"))
    first = (layout.run("d1", 0) / "telemetry.csv").read_bytes()
    assert study_status(layout.tuned())[0].state == "finished"
    tune_size(layout, "d1", device="cpu")  # the same again: nothing trains, nothing changes
    assert study_status(layout.tuned())[0].state == "finished"
    assert run()["seconds"] > 0
    assert (layout.run("d1", 0) / "telemetry.csv").read_bytes() == first
    write_json(layout.rate("d1"), {"learning_rate": rate["learning_rate"] / 2})
    with pytest.raises(JstarError, match=r"rate.json: is damaged or was edited.*jstar tune"):
        layout.tuned("d1")
    record = layout.trials("d1").with_suffix(".json")
    write_record(record, read_json(record), [layout.rate("d1")])  # as if it had been chosen
    assert study_status(layout.tuned())[0].state == "outdated"
    run()
    assert (layout.run("d1", 0) / "telemetry.csv").read_bytes() != first


def test_a_changed_study_is_tuned_anew_and_what_changes_no_trial_is_not(tuning):
    layout = tuning("changed")
    tune_size(layout, "d1", device="cpu")

    def tuned(**overrides):
        return "d1" not in tuning("changed", **overrides).tuned().study.tuned_models

    assert tuned()
    assert tuned(train={"checkpoint_seconds": 7, "snapshots": 9}, fit={"bootstrap": 200})
    assert not tuned(train={"warmup_images": 100})
    assert not tuned(tune={"share": 0.5})
    assert not tuned(tune={"batches": [32]})


def test_batches_are_tried_each_at_its_own_best_rate(tuning):
    layout = tuning("batches", tune={"batches": [64, 32]})
    assert "batch" not in json.loads(layout.study.content("train", "d1"))["train"]
    tune_size(layout, "d1", device="cpu")
    trials = pd.read_csv(layout.trials("d1"))
    best = trials.groupby("batch")["loss"].min()
    assert set(best.index) == {32, 64}
    assert (trials.groupby("batch")["rate"].nunique() >= 3).all()
    rate = read_json(layout.rate("d1"))
    assert rate["batch"] == best.idxmin()
    config = layout.tuned("d1").study.train_of("d1")
    assert (config.batch, config.learning_rate) == (rate["batch"], rate["learning_rate"])


def test_a_rate_that_diverges_is_a_trial_without_a_loss(tuning, monkeypatch):
    layout, chunk = tuning("diverging"), loop.run_chunk

    def diverge(run, border):
        if run.config.learning_rate > 0.006:
            raise loop.DivergedError("not finite")
        return chunk(run, border)

    monkeypatch.setattr(loop, "run_chunk", diverge)
    tune_size(layout, "d1", device="cpu")
    trials = pd.read_csv(layout.trials("d1"))
    assert set(trials["status"]) == {"finished", "diverged"}
    assert trials["loss"].isna().equals(trials["rate"] > 0.006)
    assert read_json(layout.rate("d1"))["learning_rate"] <= 0.006
    all_of_them = tuning("hopeless", train={"learning_rate": 10.0})
    with pytest.raises(JstarError, match="every trial of 'd1' diverged, down to the learning rate"):
        tune_size(all_of_them, "d1", device="cpu")
    assert not all_of_them.rate("d1").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tune": {"factors": [1.0, 2.0, 0.5]}}, ["tune", "factors = 1, 2, 0.5", "increase"]),
        ({"tune": {"factors": [0.5, 2.0, 4.0]}}, ["factors = 0.5, 2, 4", "hold 1, the prior"]),
        ({"tune": {"factors": [1.0, 2.0]}}, ["tune.factors", "at least 3"]),
        ({"tune": {"share": 1.5}}, ["tune.share = 1.5"]),
        ({"tune": {"shares": 0.5}}, ["'tune.shares'", "unknown", "did you mean 'share'"]),
        (
            {"tune": {"enabled": True},
             "ladder": [{"name": "d1", "depth": 1, "learning_rate": 0.01}]},
            ["tune.enabled = true", "learning_rate"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_key_is_one_sentence(tiny_study, change, words):
    with pytest.raises(JstarError) as error:
        Study.parse(tiny_study(**change))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_what_cannot_be_tuned_is_refused(tiny_study, tuning, jstar, tmp_path):
    study = Study.parse(tiny_study(tune={"enabled": True, "batches": [300]}))
    with pytest.raises(JstarError, match=r"tune.batches: 300 exceeds the data.*1 to 256"):
        check_study(study)
    off = Layout(Study.parse(tiny_study()), tmp_path)
    with pytest.raises(JstarError, match="'d1' is not to be tuned, tune.enabled = false"):
        tune_size(off, "d1")
    with pytest.raises(JstarError, match=r"study 'tiny' does not tune, tune.enabled = false"):
        write_tuning(off)
    given = [{"name": "d1", "depth": 1, "learning_rate": 0.01}, {"name": "d2", "depth": 2}]
    layout = tuning("given", ladder=given)
    assert layout.study.tuned_models == ["d2"]
    with pytest.raises(JstarError, match="'d1' is not to be tuned, it gives its learning_rate"):
        tune_size(layout, "d1")
    with pytest.raises(JstarError, match=r"d2.rate.json: is not there"):
        write_tuning(layout)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(tiny_study(study="early", tune={"enabled": True})))
    status, _, err = jstar("train", "--config", file, "--results", layout.root, "--model", "d1")
    assert status == 2
    assert "run 'jstar tune --model d1'" in err
    assert err.count("\n") == 1


def test_the_whole_way_by_its_commands(tiny_study, jstar, tmp_path):
    sizes = [{"name": "d1", "depth": 1}, {"name": "d2", "depth": 2, "learning_rate": 0.004}]
    tree = tiny_study(tune={"enabled": True, "factors": [0.5, 1.0, 2.0]}, ladder=sizes)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    layout = Layout(Study.load(tmp_path / "study.yaml"), tmp_path / "results")

    def run(*command):
        place = ("--config", tmp_path / "study.yaml", "--results", layout.root)
        status, out, err = jstar(*command, *place)
        assert status == 0, err
        return out

    here = ("--device", "cpu", "--threads", 1)
    for stage in ("prepare", "optimal", "oracle"):
        run(stage)
    run("tune", "--model", "d1", *here)
    assert run("tune").startswith("d1: learning rate ")
    tune, trials = (pd.read_csv(layout.tune / f"{name}.csv") for name in ("tune", "trials"))
    assert set(tune["model"]) == set(trials["model"]) == {"d1"}
    assert tune["trials"][0] == len(trials) >= 3
    assert (layout.tune / "tune.png").stat().st_size > 10_000
    out = run("status")
    assert "tune d1         finished" in out
    assert "0 of 2 runs finished" in out
    assert "2 runs on 1,797 images, after the tuning of 1 sizes" in plan_study(layout)
    for model in ("d1", "d2"):
        run("train", "--model", model, *here)
        run("evaluate", "--model", model, *here)
    rates = [
        read_json(layout.run(model, 0) / "run.json")["config"]["train"]["learning_rate"]
        for model in ("d1", "d2")
    ]
    assert rates == [tune["rate"][0], 0.004]
    run("fit")
    share = pd.read_csv(layout.fits / "losses.csv").groupby("model")["mistuned"].agg(["min", "max"])
    cost = tune["cost_percent"][0] / 100 * tune["loss"][0] / tune["gap"][0]
    assert cost > 0
    np.testing.assert_allclose(share.loc["d1"], cost, rtol=1e-6)
    assert (share.loc["d2"] == 0).all()
