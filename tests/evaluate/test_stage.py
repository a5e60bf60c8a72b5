"""The losses of a real run, also of averages that it did not store and of its cooldowns."""

import json
import multiprocessing

import numpy as np
import pandas as pd
import pytest

from jstar.config import Study
from jstar.constants import COOLDOWN
from jstar.data import prepare
from jstar.errors import JstarError
from jstar.evaluate import measure_share, write_losses
from jstar.evaluate.parts import MeasuredNetworks, parse_share
from jstar.evaluate.stage import Evaluation
from jstar.optimal.stage import write_oracle
from jstar.records import read_json
from jstar.train import train
from jstar.train.snapshots import list_cooldowns


def test_an_average_is_measured_where_the_snapshots_tell_it(tiny_study, tmp_path):
    keys = {**tiny_study()["train"], "ema": [0.05, 0.1, 0.2], "snapshots": 12,
            "cooldown": {"snapshots": 2}}  # fmt: skip
    study = Study.parse(tiny_study(train=keys, evaluate={"ema": [0.1, 0.15], "queries": 32}))
    data, oracle, run, out = (tmp_path / n for n in ("data", "oracle", "run", "losses.csv"))
    prepare(study.dataset, data)
    write_oracle(study, data, oracle)
    train(study, "d1", 0, data, run, tmp_path / "state", device="cpu", threads=1)
    losses = write_losses(study, run, data, oracle, out, tmp_path / "state", "cpu")
    seen = losses.groupby("ema")["snapshot"].unique().map(sorted)
    last = seen[0.1][-1]
    assert seen[0.1] == list(range(last + 1))
    assert seen[0.15][0] > 0  # one snapshot tells no other length
    assert seen[0.15] == list(range(seen[0.15][0], last + 1))
    ends = losses[losses["ema"] == COOLDOWN]
    assert set(ends["snapshot"]) == {snapshot.index for snapshot in list_cooldowns(run)}
    assert ends["snapshot"].nunique() == 2
    # Its number, images and FLOPs are those of the snapshot at which it ends.
    place = ["snapshot", "images", "flops", "split", "sigma"]
    assert len(ends.merge(losses[losses["ema"] == 0.1], on=place)) == len(ends)
    assert len(ends) == 2 * losses["split"].nunique() * (6 + 1)
    assert not ends["gap"].isin(losses.loc[losses["ema"] != COOLDOWN, "gap"]).any()
    rows = losses[losses["snapshot"] == last].pivot_table(index="sigma", columns="ema",
                                                          values="loss", sort=False)  # fmt: skip
    assert np.abs(rows[0.15] / rows[0.1] - 1).between(1e-5, 0.5).all()
    error = read_json(out.with_suffix(".json"))["profile_error"]
    assert 1e-4 < error["0.15"] < 0.01
    assert error["0.1"] < 1e-6
    budget = {**keys, "images": None, "flops": 1e9}  # no file can tell the snapshots of this one
    other = Study.parse(tiny_study(train=budget, evaluate={"ema": [0.01]}))
    with pytest.raises(JstarError, match="0.01 is not stored"):
        write_losses(other, run, data, oracle, out, tmp_path / "state", "cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of twelve snapshots, its data and oracle: arguments of `write_losses`."""
    folder = tmp_path_factory.mktemp("finished")
    study = Study.parse(
        {
            "study": "tiny",
            "dataset": {"name": "digits", "source": "digits", "limit": 256, "holdout": 32},
            "sigmas": {"min": 0.05, "max": 20, "count": 4},
            "model": {"patch": 4, "width_per_depth": 8, "head_width": 8},
            "ladder": [{"name": "d1", "depth": 1}],
            "train": {"images": 6400, "batch": 64, "snapshots": 12, "first_snapshot": 640},
            "evaluate": {"queries": 32},
        }
    )
    data, oracle, run = (folder / name for name in ("data", "oracle", "run"))
    prepare(study.dataset, data)
    write_oracle(study, data, oracle)
    train(study, "d1", 0, data, run, folder / "state", device="cpu", threads=1)
    return study, run, data, oracle


def tables(out):
    """The table and its facts, but for those that name its file."""
    facts = read_json(out.with_suffix(".json"))
    return out.read_bytes(), {k: v for k, v in facts.items() if k not in ("made", "seal")}


def test_struck_twenty_times_it_measures_a_network_anew_only_where_it_was_struck(
    finished, tmp_path, monkeypatch
):
    """A kill is an exception here, before or after a network is written; SIGKILL: the next test."""
    write_losses(*finished, tmp_path / "calm.csv", tmp_path / "calm", "cpu")
    measured, rows = [], Evaluation._rows
    monkeypatch.setattr(
        Evaluation, "_rows", lambda self, n, p: measured.append(n) or rows(self, n, p)
    )
    random, write, kills = np.random.default_rng(0), MeasuredNetworks.write, []

    def struck(self, network, values):
        if len(kills) < 20 and random.random() < 0.8:
            kills.append(random.random() < 0.4)
            if kills[-1]:
                write(self, network, values)
            raise KeyboardInterrupt
        write(self, network, values)

    monkeypatch.setattr(MeasuredNetworks, "write", struck)
    while not (tmp_path / "stormy.csv").exists():
        try:
            write_losses(*finished, tmp_path / "stormy.csv", tmp_path / "stormy", "cpu")
        except KeyboardInterrupt:
            continue
    assert len(kills) == 20
    assert tables(tmp_path / "calm.csv") == tables(tmp_path / "stormy.csv")
    networks = pd.read_csv(tmp_path / "calm.csv")["snapshot"].nunique()
    assert len(measured) == networks + kills.count(False)


def evaluate_quietly(arguments, out, state):
    write_losses(*arguments, out, state, "cpu")


def test_killed_for_real_it_ends_the_same(finished, tmp_path):
    """Four SIGKILLs (benchmarks/evaluate_kill.py: twenty)."""
    context = multiprocessing.get_context("forkserver")  # imports torch once
    context.set_forkserver_preload(["jstar.evaluate"])
    out, state, kills = tmp_path / "stormy.csv", tmp_path / "stormy", 0
    for wanted in (1, 3, 5, 8):
        process = context.Process(target=evaluate_quietly, args=(finished, out, state))
        process.start()
        while process.is_alive() and len(list(state.rglob("[0-9]*.json"))) < wanted:
            pass
        kills += process.is_alive()
        process.kill()
        process.join()
    assert kills == 4
    evaluate_quietly(finished, out, state)
    evaluate_quietly(finished, tmp_path / "calm.csv", tmp_path / "calm")
    assert tables(out) == tables(tmp_path / "calm.csv")


def test_two_shares_give_the_numbers_of_one(finished, tmp_path, monkeypatch):
    write_losses(*finished, tmp_path / "one.csv", tmp_path / "one", "cpu")
    for number in (2, 1):
        done = tmp_path / f"{number}-of-2.json"
        measure_share(*finished, done, tmp_path / "two", (number, 2), "cpu")
    counts = [read_json(tmp_path / f"{k}-of-2.json")["networks"] for k in (1, 2)]
    assert abs(counts[0] - counts[1]) <= 1
    monkeypatch.setattr(Evaluation, "_rows", None)  # nothing is left to measure
    write_losses(*finished, tmp_path / "two.csv", tmp_path / "two", "cpu")
    assert tables(tmp_path / "one.csv") == tables(tmp_path / "two.csv")


@pytest.mark.parametrize("sealed", [True, False])
def test_a_measured_network_that_was_edited_is_measured_anew(finished, tmp_path, sealed):
    write_losses(*finished, tmp_path / "calm.csv", tmp_path / "calm", "cpu")
    part = min((tmp_path / "calm").rglob("[0-9]*.json"))
    tree = json.loads(part.read_text())
    tree["rows"][0][0] *= 2
    part.write_text(
        json.dumps({k: v for k, v in tree.items() if sealed or k not in ("made", "seal")})
    )
    write_losses(*finished, tmp_path / "edited.csv", tmp_path / "calm", "cpu")
    assert tables(tmp_path / "edited.csv") == tables(tmp_path / "calm.csv")


def test_what_was_measured_of_other_draws_does_not_count(finished, tmp_path):
    study, *where = finished
    before = write_losses(study, *where, tmp_path / "a.csv", tmp_path / "state", "cpu")
    evaluate = study.evaluate.model_copy(update={"seed": 5})  # of the held-out draws
    other = study.model_copy(update={"evaluate": evaluate})
    after = write_losses(other, *where, tmp_path / "b.csv", tmp_path / "state", "cpu")
    changed = after["loss"] != before["loss"]
    assert changed[after["split"] == "holdout"].all()


def test_bf16_says_how_much_it_moves_the_gap(finished, tmp_path, capsys):
    study, *where = finished
    evaluate = study.evaluate.model_copy(update={"precision": "bf16"})
    half = study.model_copy(update={"evaluate": evaluate})
    low = write_losses(half, *where, tmp_path / "half.csv", tmp_path / "state", "cpu")
    full = write_losses(study, *where, tmp_path / "full.csv", tmp_path / "state", "cpu")
    bias = read_json(tmp_path / "half.json")["bias"]
    last = low["snapshot"].max()
    rows = [t[(t["snapshot"] == last) & (t["split"] == "train")]["gap"][:4] for t in (low, full)]
    np.testing.assert_allclose(bias["gap"], rows[0].to_numpy() - rows[1].to_numpy(), atol=1e-9)
    assert np.abs(bias["share_of_gap"]).max() > 1e-6
    assert "bf16 moves the gap of snapshot" in capsys.readouterr().err
    assert "bias" not in read_json(tmp_path / "full.json")


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b"])
def test_a_wrong_share_is_one_sentence(text):
    with pytest.raises(JstarError, match="k/n with k from 1 to n"):
        parse_share(text)
