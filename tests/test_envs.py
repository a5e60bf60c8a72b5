"""The pins: installable on any machine, with a GPU or without."""

import re

from conftest import ROOT

FILES = [*(ROOT / "envs").iterdir(), ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "README.md"]
LOCAL_VERSION = re.compile(r"[\w.-]+ ?[=~]=? ?\d[\w.!]*\+\w+")


def test_no_requirement_asks_for_one_build():
    assert LOCAL_VERSION.search("pip install torch==2.13.0+cpu")
    assert not [found for file in FILES for found in LOCAL_VERSION.findall(file.read_text())]


def test_every_constraint_is_a_plain_pin():
    lines = (ROOT / "envs/constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert any(pin.startswith("torch==") for pin in pins)
    assert not [pin for pin in pins if not re.fullmatch(r"[\w.-]+==\d[\w.!]*", pin)]
