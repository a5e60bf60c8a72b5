"""jstar optimal, optimal-merge, optimal-compare and optimal-figures from the command line."""

import pandas as pd
import pytest
import yaml

from jstar.config import Study
from jstar.data import prepare
from jstar.records import read_json


@pytest.fixture
def prepared(tiny_study, tmp_path):
    """`prepared(**overrides)`: the options that name a study with its dataset prepared."""

    def make(**overrides):
        tree = tiny_study(**overrides)
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
        prepare(Study.parse(tree).dataset, tmp_path / "results" / "data" / "digits")
        return ["--config", tmp_path / "study.yaml", "--results", tmp_path / "results"]

    return make


def test_another_form_goes_to_a_table_of_its_own(jstar, prepared, tmp_path):
    study = prepared()
    assert jstar("optimal", *study)[0] == 0
    assert jstar("optimal", *study, "--form", "moment", "--out", tmp_path / "moment.csv")[0] == 0
    ours = pd.read_csv(tmp_path / "results" / "optimal" / "digits" / "curve.csv")
    moment = pd.read_csv(tmp_path / "moment.csv")
    assert set(moment["form"]) == {"moment"}
    assert set(ours["form"]) <= {"pair", "pair+controls"}
    assert ((ours["loss"] - moment["loss"]).abs() < 4 * moment["stderr"] + 1e-6).all()
    for wrong, words in (
        (["--form", "moment"], "with --out"),
        (["--form", "momnt", "--out", tmp_path / "no.csv"], "did you mean 'moment'"),
        (["--label-drop", "0.1", "--out", tmp_path / "no.csv"], "exact_by_class"),
        (["--form", "pair", "--out", tmp_path / "no.csv", "--shard", "1/2"], "no --shard"),
    ):
        status, _, error = jstar("optimal", *study, *wrong)
        assert (status, words in error, error.count("\n")) == (2, True, 1)
    assert not (tmp_path / "no.csv").exists()


def test_the_form_of_the_study_is_used(jstar, prepared, tmp_path):
    assert jstar("optimal", *prepared(optimal={"form": "pair"}))[0] == 0
    curve = pd.read_csv(tmp_path / "results" / "optimal" / "digits" / "curve.csv")
    assert set(curve["form"]) == {"pair"}


def test_label_drop_raises_the_loss_of_a_class_conditional_study(jstar, prepared, tmp_path):
    study = prepared(optimal={"estimator": "exact_by_class"}, model={"class_drop": 0.2})
    jstar("optimal", *study)
    jstar("optimal", *study, "--label-drop", "0.2", "--out", tmp_path / "dropped.csv")
    labelled = pd.read_csv(tmp_path / "results" / "optimal" / "digits" / "curve.csv")
    dropped = pd.read_csv(tmp_path / "dropped.csv")
    assert (dropped["loss"].iloc[2:] > labelled["loss"].iloc[2:]).all()
    assert read_json(tmp_path / "dropped.json")["label_drop"] == 0.2


def test_comparison_and_figures(jstar, prepared, tmp_path):
    study = prepared()
    jstar("optimal", *study)
    assert jstar("optimal-compare", *study, "--queries", "200")[0] == 0
    folder = tmp_path / "results" / "optimal" / "digits"
    status, said, _ = jstar(
        "optimal-figures", "--out", tmp_path / "figures", folder / "curve.csv",
        "--comparison", folder / "comparison",
    )  # fmt: skip
    assert (status, "optimal_forms" in said) == (0, True)
    assert len(list((tmp_path / "figures").glob("*.pdf"))) == 4
    assert jstar("optimal-figures", "--out", tmp_path / "figures")[0] == 2
