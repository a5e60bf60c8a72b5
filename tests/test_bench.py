"""jstar bench: every line is measured, printed beside the committed one, and written sealed."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from jstar import probe
from jstar.bench import Measure, bench_lines, measures, table
from jstar.records import provenance, read_json, read_table, write_table

TINY = 0.01


def test_the_command_measures_all_and_writes_a_sealed_table(jstar, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "user_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(measures, "BLOCKS", (16, 48))
    out = tmp_path / "bench.csv"
    status, printed, err = jstar("bench", "--seconds", TINY, "--threads", 2, "--out", out)
    assert status == 0, err
    frame = read_table(out, ["what", "value", "unit", "used"])
    assert (frame["value"] > 0).all()
    assert [what for what in frame["what"] if what not in printed] == []
    assert {"w8", "w20", "w40"} == {what.split()[2].strip(",") for what in frame["what"]
                                    if what.startswith("training")}  # fmt: skip
    facts = read_json(out.with_suffix(".json"))
    assert facts["threads"] == 2
    assert facts["device"] in printed
    assert facts["command"].startswith("jstar bench --seconds 0.01")
    out.write_text(out.read_text().replace("GFLOP", "TFLOP"))
    with pytest.raises(Exception, match="damaged or was edited"):
        read_table(out)


def test_numbers_stand_beside_the_committed_ones_of_a_named_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "application", lambda: tmp_path)
    found = [Measure("fp32", 149.4, "GFLOP/s"), Measure("new", 0.5, "times", "c")]
    assert "committed:" not in "\n".join(bench_lines(found))  # none came with it
    frame = pd.DataFrame([{"what": "fp32", "value": 1234.5, "unit": "GFLOP/s", "used": ""}])
    facts = {"device": "A CPU", "features": "AVX2", "threads": 2, "torch": "2.6", "load": 0.1}
    write_table(tmp_path / table.COMMITTED, frame, provenance(command="jstar bench", **facts))
    lines = bench_lines(found)
    assert lines[1].split() == ["fp32", "149", "1,234", "GFLOP/s"]
    assert lines[2].split() == ["new", "0.5", "–", "times", "c"]
    assert lines[-1].startswith("committed: A CPU, AVX2, 2 threads, torch 2.6, load 0.1")


def test_a_rate_is_that_of_the_quickest_call():
    waits = iter([0.0, 0.03, 0.01, 0.02, *[0.02] * 99])
    found = measures._least(lambda: time.sleep(next(waits)), 0.0, time.perf_counter)
    assert 0.01 <= found < 0.02


def test_the_images_are_the_same_every_time_and_not_all_alike():
    images = measures.synthetic_images(40)
    assert images.shape == (40, 3, 32, 32)
    np.testing.assert_array_equal(images, measures.synthetic_images(40))
    assert images.reshape(40, -1).mean(1).std() > 20  # as photographs, they differ in brightness


def test_the_processor_time_is_that_of_the_command():
    begun = measures._children()
    burn = "import time\nwhile time.process_time() < .2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert 0.2 <= measures._children() - begun < 1


def test_the_committed_table_is_of_this_command():
    frame = read_table(ROOT / table.COMMITTED, ["what", "value", "unit", "used"])
    facts = read_json((ROOT / table.COMMITTED).with_suffix(".json"))
    assert facts["command"] == f"jstar bench --out {table.COMMITTED}"
    names = [
        f"network of one block of width {w}, forward and backward, torch over C"
        for w in measures.BLOCKS
    ]
    assert set(names) <= set(frame["what"])
