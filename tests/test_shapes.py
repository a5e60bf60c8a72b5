"""Names such as x_BD say the axes of an array; what a letter means stands in the room's docstring.

The block `Shape letters:` of a room's __init__.py holds `LETTER  meaning`, one or more in a line,
two spaces or more between them. Files at the top of the package have theirs in jstar/__init__.py.
"""

import ast
import re
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import ROOT

from jstar.config import FitConfig
from jstar.evaluate import measure
from jstar.optimal import optimal_loss, posterior_mean
from jstar.scaling.simulate import TrueStudy, simulate_study
from jstar.scaling.stage import write_fits

PACKAGE = ROOT / "src" / "jstar"
ROOMS = [PACKAGE, *sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))]
NAME = re.compile(r"[a-z]\w*_(?=\d*[A-Z])([A-Z\d]+)$")


def legend(room):
    """How often the docstring explains each letter."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    block = re.search(r"Shape letters:\n((?: +\S.*\n?)*)", text)
    words = re.findall(r"(?:^|  )([A-Z](?:, [A-Z])*)  +\S", block[1], re.M) if block else []
    return Counter(letter for word in words for letter in word.split(", "))


def letters(room):
    """Letters of all suffixes in a room: letter -> a name that has it."""
    files = room.glob("*.py") if room == PACKAGE else room.rglob("*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    names = (getattr(n, key, None) for n in nodes for key in ("id", "attr", "arg"))
    found = (NAME.match(name) for name in names if isinstance(name, str))
    return {letter: m[0] for m in found if m for letter in m[1] if letter.isalpha()}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_letter_has_one_meaning_in_its_room(room):
    known = legend(room)
    assert {letter: name for letter, name in letters(room).items() if letter not in known} == {}
    assert [letter for letter, count in known.items() if count > 1] == []


def clashes(work):
    """Functions, run by `work`, in which one letter stands for two sizes or axes are missing."""
    found = set()

    def leave(frame, event, _):
        code = frame.f_code
        if event != "return" or not code.co_filename.startswith(str(PACKAGE)):
            return
        sizes = {}
        for name, value in frame.f_locals.items():
            if (match := NAME.match(name)) and isinstance(value, np.ndarray | torch.Tensor):
                if value.ndim != len(match[1]):
                    found.add((code.co_qualname, name, tuple(value.shape)))
                for letter, size in zip(match[1], value.shape, strict=False):
                    sizes.setdefault(letter, {})[name] = size
        found.update(
            (code.co_qualname, k, str(s)) for k, s in sizes.items() if len({*s.values()}) > 1
        )

    sys.setprofile(leave)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def optimal(_):
    images, labels = np.random.default_rng(0).normal(size=(37, 6)), np.arange(37) % 2
    by_class = {"estimator": "exact_by_class", "labels": labels}
    subsets = [{"estimator": name, "subset": 9} for name in ("dol", "cdol", "snis")]
    forms = [{"form": "pair"}, {"form": "moment"}, {"spread": np.full_like(images, 0.1)}]
    for options in ({}, by_class, {"label_drop": 0.1, **by_class}, *subsets, *forms):
        optimal_loss(images, [0.1, 0.5, 2.0], queries=16, **options)
    posterior_mean(images[:5], images, 0.5)


def scaling(folder):
    tables = simulate_study(TrueStudy(sizes=(1e5, 1e7, 5), images=(1e4, 3e6, 8)), 0)
    for name, table in zip("ab", tables, strict=True):
        table.to_csv(folder / name, index=False)
    config = FitConfig(bootstrap=100, calibration=100)
    write_fits([folder / "a"], folder / "b", folder / "out", config=config, process="edm")


def evaluate(_):
    draws = np.zeros((7, 1, 2, 3), np.float32)
    labels = np.zeros(7, np.int64)
    measured = measure(lambda x, sigma, y: x, draws, draws, np.ones(2), labels_M=labels,
                       posterior_mean=lambda s: draws, batch=7)  # fmt: skip
    measured.summary(np.ones((3, 2)))


@pytest.mark.parametrize("work", [optimal, scaling, evaluate])
def test_a_letter_has_one_size_in_one_call(work, tmp_path):
    assert clashes(lambda: work(tmp_path)) == set()
