"""Every file of a study, damaged in every way: the next command says it and changes nothing."""

import json
import re
import shutil

import pytest
from damage_cases import CASES, COMMANDS

from jstar.records import read_json, sealed


@pytest.mark.parametrize("name", CASES)
def test_damage_is_one_sentence_and_changes_nothing(name, copied, other, jstar):
    file, damage, command, words = CASES[name]
    damage(copied, other)
    before = copied.content()
    status, out, err = jstar(*COMMANDS[command](copied))
    said = [line for line in err.splitlines() if line.startswith("jstar: ")]
    assert (status, len(said)) == (2, 1), (out, err)
    assert "Traceback" not in err
    assert file in said[0]
    assert re.search(words, said[0]), said[0]
    assert copied.content() == before


def test_there_are_enough_cells():
    assert len(CASES) >= 60


@pytest.mark.parametrize("command", ["optimal", "oracle", "evaluate", "figure", "train"])
def test_the_same_commands_take_the_whole_study(command, copied, jstar):
    """What refuses the damaged must not refuse the whole: no cell passes for another reason."""
    status, _, err = jstar(*COMMANDS[command](copied))
    assert status == 0, err


def test_a_record_without_its_seal_is_refused(copied, jstar):
    path = copied.layout.losses("d1", 0).with_suffix(".json")
    facts = json.loads(path.read_text())
    facts.pop("seal")
    path.write_text(json.dumps(facts))
    assert jstar(*COMMANDS["fit"](copied))[0] == 2


def test_a_table_without_a_record_is_welcome_and_said_in_one_line(copied, jstar):
    shutil.rmtree(copied / "studies")
    for run in copied.layout.study.runs():
        path = copied.layout.losses(*run)
        path.with_suffix(".json").unlink()
        path.write_text(path.read_text().replace("d1-s0", "mine"))
    status, _, err = jstar(*COMMANDS["fit"](copied))
    assert status == 0, err
    assert err.count("without the record of a jstar stage, taken as it is") == 1
    assert "and 2 more" in err


def test_the_key_that_skips_large_arrays_skips_only_those(copied, jstar):
    study = copied.folder / "study.yaml"
    study.write_text(study.read_text() + "\nresources: {verify_arrays: false}\n")
    for case in ("images: a bit, evaluate", "means: a bit, evaluate"):
        CASES[case][1](copied, None)
    assert jstar(*COMMANDS["evaluate"](copied))[0] == 0
    CASES["labels: a bit, evaluate"][1](copied, None)
    assert jstar(*COMMANDS["evaluate"](copied))[0] == 2


def test_a_card_of_an_older_jstar_is_read(copied, jstar):
    path = copied.layout.data / "card.json"
    facts = read_json(path)
    for key in ("seal", "holdout_sha256", "source_stamp"):
        facts.pop(key)
    path.write_text(json.dumps(facts))
    assert jstar(*COMMANDS["evaluate"](copied))[0] == 0
    assert sealed(facts)["seal"] != sealed({**facts, "std": 2 * facts["std"]})["seal"]
