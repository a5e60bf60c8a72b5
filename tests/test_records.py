"""Tables and provenance: whole or not at all, and the same on every machine."""

import json

import numpy as np
import pandas as pd
import pytest

from jstar.errors import JstarError
from jstar.records import (
    fingerprint,
    provenance,
    read_json,
    read_table,
    write_atomically,
    write_json,
    write_table,
)


def test_a_table_has_its_provenance_beside_it(tmp_path):
    frame = pd.DataFrame({"sigma": [0.1, 1.0], "loss": [1 / 3, 2e-12]})
    write_table(tmp_path / "deep" / "x.csv", frame, provenance(card_id="abc"))
    back = read_table(tmp_path / "deep" / "x.csv", ["sigma", "loss"])
    np.testing.assert_allclose(back["loss"], frame["loss"], rtol=1e-8)
    facts = read_json(tmp_path / "deep" / "x.json")
    assert facts["card_id"] == "abc"
    assert "multiply-add" in facts["flop_convention"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JstarError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "x.json", {"a": [np.nan, np.float32(1.5), np.int64(2)], "b": np.bool_(1)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.5, 2], "b": True}


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("run,loss\na,1\n")
    with pytest.raises(JstarError, match="'flops' is missing, found are run, loss"):
        read_table(tmp_path / "x.csv", ["run", "flops"])


def test_fingerprints_ignore_the_order_of_keys_and_see_values():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
