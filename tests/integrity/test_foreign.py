"""Tables that do not belong together are refused, and both are named."""

import numpy as np
import pandas as pd
import pytest
import yaml

from jstar.curve import read_curve
from jstar.errors import JstarError
from jstar.manifest import identity, parents, require_together
from jstar.records import provenance, read_json, sealed, write_json, write_table
from jstar.sampling.quality.correlation import write_quality_tables


def relabelled(path, **facts):
    """The record beside a table, with other facts: whole, of another origin."""
    record = path.with_suffix(".json")
    write_json(record, sealed({**read_json(record), **facts}))


@pytest.mark.parametrize(
    ("key", "value"),
    [("card_id", "f" * 16), ("loss_unit", "nats per token"), ("flop_convention", "6 N D")],
)
def test_fit_refuses_losses_of_another_origin(copied, jstar, key, value):
    first, second = copied.layout.losses("d1", 0), copied.layout.losses("d1", 1)
    relabelled(second, **{key: value})
    status, _, err = jstar(
        "fit", "--losses", first, "--losses", second, "--out", copied.folder / "o"
    )
    assert (status, err.count("\n")) == (2, 1)
    for words in (first, second, value):
        assert str(words) in err
    assert not (copied.folder / "o").exists()


def test_fit_of_anybodys_options_refuses_a_curve_of_another_dataset(copied, other, jstar):
    tables = [
        w for run in copied.layout.study.runs() for w in ("--losses", copied.layout.losses(*run))
    ]
    curve, out = other.layout.curve, copied.folder / "o"
    status, _, err = jstar("fit", *tables, "--optimal", curve, "--out", out)
    assert (status, err.count("\n")) == (2, 1)
    ids = [read_json(place.layout.data / "card.json")["id"] for place in (copied, other)]
    for words in (curve, copied.layout.losses("d1", 0), *ids):
        assert str(words) in err
    assert not out.exists()


def quality_table(place, run, card_id, fid):
    """A table of sample quality as the stage sampling writes it."""
    path = place.layout.quality(*run)
    frame = pd.DataFrame({"run": path.parent.name, "snapshot": [1, 2], "ema": 0.1,
                          "features": "f", "fid": [fid, fid / 2]})  # fmt: skip
    write_table(path, frame, provenance(card_id=card_id, run=path.parent.name))
    return path


def test_quality_refuses_samples_of_another_dataset_or_run(copied, tmp_path):
    runs = copied.layout.study.runs()
    card_id = read_json(copied.layout.data / "card.json")["id"]
    losses = [copied.layout.losses(*run) for run in runs]
    quality = [quality_table(copied, run, card_id, 3.0 + k) for k, run in enumerate(runs)]
    write_quality_tables(quality, losses, tmp_path / "whole")
    relabelled(quality[1], run="d1-s0")
    with pytest.raises(JstarError, match=r"d1-s1/quality.csv: is of run 'd1-s0', not of 'd1-s1'"):
        write_quality_tables(quality, losses, tmp_path / "out")
    quality_table(copied, runs[1], "f" * 16, 3.0)
    with pytest.raises(JstarError, match=r"losses.csv: .*quality.csv of the .*f{16}|f{16}"):
        write_quality_tables(quality, losses, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_theory_refuses_a_curve_of_another_dataset(copied, other, jstar):
    losses, out = copied.layout.losses("d1", 0), copied.folder / "o"
    curve = other.layout.curve
    status, _, err = jstar(
        "sampling", "theory", "--losses", losses, "--optimal", curve, "--out", out
    )
    assert (status, err.count("\n")) == (2, 1)
    assert str(curve) in err
    assert str(losses) in err
    assert not out.exists()


@pytest.mark.parametrize("command", ["losses", "noise-laws"])
def test_variants_refuse_a_run_on_other_data(copied, other, jstar, command):
    """The laws compared, and the losses: a table and its record from the other study."""
    study = copied.folder / "study.yaml"
    tree = yaml.safe_load(study.read_text())
    law = {"process": "edm", "noise": {"law": "optimal_loss"}}
    ladder = [{"name": "d1", "depth": 1}, {"name": "d2", "depth": 1, "variant": law}]
    study.write_text(yaml.safe_dump({**tree, "kind": "variants", "ladder": ladder}))
    relabelled(copied.layout.losses("d2", 0), card_id="f" * 16)
    status, _, err = jstar("variants", command, *copied.options())
    assert (status, err.count("\n")) == (2, 1)
    assert "d2-s0/losses.csv: is of the training distribution ffffffffffffffff" in err
    assert str(copied.layout.curve) in err


def test_a_name_of_content_is_that_of_the_bytes(tmp_path):
    """Made again with the same bytes, or at another time, it is the same parent."""
    frame = pd.DataFrame({"a": np.arange(3)})
    write_table(tmp_path / "x.csv", frame, provenance(seconds=1.0))
    first = identity(tmp_path / "x.csv")
    write_table(tmp_path / "x.csv", frame, provenance(seconds=2.0))
    assert identity(tmp_path / "x.json") == first
    write_table(tmp_path / "x.csv", frame + 1, provenance(seconds=2.0))
    assert identity(tmp_path / "x.csv") != first
    assert identity(tmp_path / "y.csv") is None
    of = parents(tmp_path / "deep/z.json", [tmp_path / "x.csv", tmp_path / "y.csv", None])
    assert of == {"parents": {"../x.csv": identity(tmp_path / "x.csv")}}


def test_what_nobody_states_is_not_compared(copied, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("sigma,loss\n1,0.5\n")
    require_together([table, copied.layout.curve], "card_id", "loss_unit")
    table.with_suffix(".json").write_text("[1, 2]")
    require_together([table, copied.layout.curve], "card_id", "loss_unit")
    assert read_curve(table).loss == pytest.approx([0.5])
