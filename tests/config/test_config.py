"""Study files: what is refused, in which words, and what a stage may depend on."""

import json

import pytest
import yaml

from jstar.config import Study
from jstar.data.check import check_study, image_count
from jstar.data.sources.digits import COUNT as DIGITS_COUNT
from jstar.errors import JstarError


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update(sigmaz=1), ["'sigmaz'", "unknown", "did you mean 'sigmas'"]),
        (lambda t: t.update(sample={}), ["'sample'", "unknown", "did you mean 'sampling'"]),
        (lambda t: t["train"].update(lr=1), ["'train.lr'", "unknown", "allowed here", "images"]),
        (lambda t: t["ladder"][1].update(dept=3), ["'ladder[1].dept'", "did you mean 'depth'"]),
        (lambda t: t["ladder"][0].update(depth=-3), ["ladder[0].depth = -3", "greater than"]),
        (lambda t: t["train"].update(batch=0), ["train.batch = 0"]),
        (lambda t: t.update(sigmas={"min": 9, "max": 2}), ["sigmas", "min = 9", "max = 2"]),
        (lambda t: t["dataset"].update(source="digit"), ["'digit'", "did you mean 'digits'"]),
        (
            lambda t: t["train"].update(process="emd"),
            ["train.process = 'emd'", "allowed are", "edm"],
        ),
        (lambda t: t["train"].update(images=10), ["batch = 64", "images = 10"]),
        (lambda t: t["train"].update(first_snapshot=10**9), ["first_snapshot", "images"]),
        (lambda t: t.pop("ladder"), ["'ladder'", "missing"]),
        (lambda t: t["ladder"].append(t["ladder"][0]), ["'d1'", "twice"]),
        (lambda t: t.update(fit={"ema": 0.7}), ["fit.ema", "0.7", "0.1"]),
        (lambda t: t["train"].update(ema=[0.7]), ["train.ema", "0.7", "0.2887"]),
        (lambda t: t.update(fit={"ema": "cooldown"}), ["fit.ema", "needs train.cooldown"]),
        (lambda t: t.update(fit={"ema": "cool"}), ["fit.ema = 'cool'", "the word cooldown"]),
        (lambda t: t.update(fit={"ema": 0}), ["fit.ema = 0", "lengths above 0"]),
        (lambda t: t["train"].update(cooldown={"share": 1}), ["train.cooldown.share = 1"]),
        (
            lambda t: t["train"].update(cooldown={"snapshots": 7}),
            ["cooldown.snapshots = 7", "exceed snapshots = 6"],
        ),
        (lambda t: t["train"].update(cooldown={"length": 1}), ["'train.cooldown.length'", "share"]),
        (
            lambda t: t.update(kind="variants", train={**t["train"], "cooldown": {}}),
            ["train.cooldown", "'variants'", "only in 'scaling'"],
        ),
        (
            lambda t: t.update(evaluate={"ema": [0.1, 0.2]}),
            ["evaluate.ema", "0.2", "of 0.1 at 6", "possible are 0.09"],
        ),
        (lambda t: t["model"].update(class_drop=0.1), ["estimator", "class_drop"]),
        (lambda t: t.update(study="My Study"), ["study = 'My Study'"]),
    ],
)
def test_a_wrong_study_is_one_sentence_that_names_the_key(tiny_study, tmp_path, change, words):
    tree = tiny_study()
    change(tree)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(JstarError) as caught:
        Study.load(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(path) in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("text", "word"), [("a: [", "not valid YAML"), ("- 1", "list"), (None, "cannot be read")]
)
def test_a_file_that_is_no_study(tmp_path, text, word):
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(JstarError, match=word):
        Study.load(path)


def test_a_study_is_frozen(tiny_study):
    study = Study.parse(tiny_study())
    with pytest.raises(ValueError, match="frozen"):
        study.train.batch = 3


def test_content_changes_only_with_what_changes_numbers(tiny_study):
    base = Study.parse(tiny_study())

    def content(stage, **overrides):
        return Study.parse(tiny_study(**overrides)).content(
            stage, "d1" if stage == "train" else None
        )

    def same(stage, **overrides):
        return content(stage, **overrides) == base.content(
            stage, "d1" if stage == "train" else None
        )

    assert same("train", train={"checkpoint_seconds": 7})
    assert same("train", resources={"train_threads": 2})
    assert same("train", fit={"bootstrap": 200})
    assert same("train", evaluate={"queries": 32})
    assert same("train", figures={"sigmas": 2})
    assert same("train", ladder=[{"name": "d1", "depth": 1, "seeds": [0, 1, 2, 3]}])
    assert not same("train", train={"learning_rate": 0.1})
    assert not same("train", ladder=[{"name": "d1", "depth": 3}])
    assert same("optimal", train={"learning_rate": 0.1})
    assert not same("optimal", sigmas={"count": 7})
    assert not same("fit", fit={"bootstrap": 200})


def test_an_average_that_is_not_stored_may_be_used_where_it_can_be_made(tiny_study):
    stored = {**tiny_study()["train"], "ema": [0.05, 0.1], "snapshots": 24}
    made = {"evaluate": {"ema": [0.07, 0.05]}, "fit": {"ema": 0.05}, "sampling": {"ema": 0.07}}
    study = Study.parse(tiny_study(train=stored, **made))
    assert (study.lengths, study.ema) == ([0.07, 0.05], 0.05)
    assert Study.parse(tiny_study(train=stored, evaluate={"ema": [0.07]})).ema == 0.07
    with pytest.raises(JstarError, match=r"sampling.ema: 0.07 is not evaluated"):
        Study.parse(tiny_study(train=stored, sampling={"ema": 0.07}))
    sparse = [{"name": "d1", "depth": 1, "images": 10**8}]  # its snapshots lie too far apart
    with pytest.raises(JstarError, match=r"0.07 is not stored"):
        Study.parse(tiny_study(train=stored, ladder=sparse, **made))


def test_the_ends_of_cooldowns_are_fitted_where_the_word_says_so(tiny_study):
    train = {"cooldown": {"snapshots": 2}}
    study = Study.parse(tiny_study(train=train, fit={"ema": "cooldown"}))
    assert (study.ema, study.average) == (0.0, 0.1)
    assert Study.parse(tiny_study(train=train)).ema == 0.1
    assert json.loads(study.content("fit"))["fit"]["ema"] == "cooldown"
    assert Study.parse(json.loads(study.model_dump_json())) == study


def test_content_is_json_and_complete_studies_load_again(tiny_study):
    study = Study.parse(tiny_study())
    for stage in ("prepare", "optimal", "oracle", "evaluate", "fit", "figures"):
        json.loads(study.content(stage))
    assert Study.parse(json.loads(study.model_dump_json())) == study


def test_batch_larger_than_the_data_is_found_before_any_job(tiny_study):
    study = Study.parse(tiny_study(train={"batch": 300}))
    with pytest.raises(JstarError, match=r"train.batch = 300 exceeds the data.*1 to 256"):
        check_study(study)


def test_a_dataset_that_does_not_exist_is_found_before_any_job(tiny_study, tmp_path):
    missing = str(tmp_path / "none.npz")
    study = Study.parse(tiny_study(dataset={"source": "npz", "path": missing}))
    with pytest.raises(JstarError, match="none.npz"):
        check_study(study)


def test_the_digits_count_is_what_scikit_learn_ships():
    from sklearn.datasets import load_digits

    assert len(load_digits().target) == DIGITS_COUNT


def test_the_count_of_an_npz_is_read_from_its_header(tiny_study, tmp_path):
    import numpy as np

    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((11, 4, 4, 1), np.uint8))
    study = Study.parse(tiny_study(dataset={"source": "npz", "path": str(path)}))
    assert image_count(study.dataset) == 11
    path.write_bytes(b"not a zip")
    with pytest.raises(JstarError, match="not a .npz"):
        image_count(study.dataset)


def test_an_entry_with_a_variant_trains_it_and_only_it(tiny_study):
    study_values = tiny_study()
    study_values["kind"] = "variants"
    study_values["train"] |= {"process": "edm", "noise_mean": -0.8}
    study_values["ladder"] = [
        {"name": "plain", "depth": 2},
        {"name": "flow", "depth": 2, "variant": {"process": "fm"}},
    ]
    study = Study.parse(study_values)
    assert study.train_of("plain") == study.train
    flow = study.train_of("flow")
    assert (flow.process, flow.noise_mean) == ("fm", None)  # nothing of the study's own law
    assert flow.learning_rate == study.train.learning_rate
    # What a rule depends on is what is trained, however it is written.
    study_values["train"] |= {"process": "fm", "noise_mean": None}
    study_values["ladder"][1]["variant"] = None
    same = Study.parse(study_values)
    assert same.content("train", "flow") == study.content("train", "flow")
    assert same.content("train", "plain") != study.content("train", "plain")


def test_a_published_size_says_its_depth_and_width(tiny_study):
    entries = [{"name": "dit-1.5b"}, {"name": "dit-120m", "depth": 2}, {"name": "d3", "depth": 3}]
    ladder = Study.parse(tiny_study(ladder=entries)).ladder
    assert [(entry.depth, entry.width) for entry in ladder] == [(28, 1728), (2, None), (3, None)]


def test_an_entry_without_depth_is_refused_and_the_nearest_size_named(tiny_study):
    with pytest.raises(JstarError, match=r"ladder\[0\].*depth is missing.*did you mean 'dit-120m'"):
        Study.parse(tiny_study(ladder=[{"name": "dit-120"}]))
