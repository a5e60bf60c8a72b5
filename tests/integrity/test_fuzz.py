"""Mutants of small files, from fixed seeds: every reader reads or says a sentence.

No traceback, no read of over 10 s, no memory of over 2 GiB. 100 of them; JSTAR_FUZZ=25 makes 500.
"""

import os
import resource

import numpy as np
import pytest
from readers import SOURCES, mutant, outcome, readers

MUTANTS = int(os.environ.get("JSTAR_FUZZ", 5))  # of each of 20 kinds
NAMES = ["losses", "record of losses", "semicolons", "curve", "record of the curve", "fits",
         "fits.json", "card", "held-out images", "oracle", "draws", "run", "snapshot",
         "checkpoint", "marker"]  # fmt: skip
GIB = 2**30


def tried(path, read, seed):
    """What becomes of the mutants of one file."""
    whole, memory = path.read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    said = []
    for number in range(MUTANTS):
        rng = np.random.default_rng([seed, number])
        said.append(outcome(path, mutant(whole, rng), read))
    assert all("\n" not in one for one in said), said
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - memory
    assert grown < 2 * GIB
    path.unlink()
    path.write_bytes(whole)
    read()  # the whole file is read


@pytest.mark.filterwarnings("ignore")
def test_mutants_of_a_study(copied):
    known = readers(copied)
    assert list(known) == NAMES
    for seed, name in enumerate(NAMES):
        try:
            tried(*known[name], seed)
        except Exception as error:
            error.add_note(name)
            raise


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOURCES)
def test_mutants_of_a_source(name, tmp_path):
    write, read = SOURCES[name]
    path = write(tmp_path)
    tried(path, lambda: read(tmp_path), 100 + list(SOURCES).index(name))
