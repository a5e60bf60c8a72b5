"""The table of `jstar bench`: this machine's numbers beside those of a committed one."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from jstar.application import application
from jstar.bench.measures import Measure
from jstar.hardware import cpu_name
from jstar.records import read_json, read_table

if TYPE_CHECKING:
    import pandas as pd

COMMITTED = "results/reference/benchmarks/bench.csv"


def machine() -> dict[str, Any]:
    """The class of this machine, in the words of a record."""
    features = torch.backends.cpu.get_cpu_capability()
    vnni = bool(torch.cpu._is_vnni_supported())
    return {
        "device": cpu_name(), "features": f"{features}{', VNNI' if vnni else ''}",
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def bench_frame(found: Sequence[Measure]) -> "pd.DataFrame":
    """The table as it is written."""
    import pandas as pd

    return pd.DataFrame([asdict(one) for one in found])


def bench_lines(found: Sequence[Measure]) -> list[str]:
    """The table as it is printed, and which machines it compares."""
    committed: dict[str, float] = {}
    words = [f"here: {_class(machine())}"]
    path = application() / COMMITTED
    if path.is_file():
        table = read_table(path, ["what", "value"])
        committed = dict(zip(table["what"], table["value"], strict=True))
        facts = read_json(path.with_suffix(".json"))
        words.append(f"committed: {_class(facts)}, commit {facts['commit']}: {facts['command']}")
    rows = [("", "here", "committed", "", "used here")]
    for one in found:
        other = committed.get(one.what, float("nan"))
        rows.append((one.what, _number(one.value), _number(other), one.unit, one.used))
    wide = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = [
        f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d:<{wide[3]}}  {e}".rstrip()
        for a, b, c, d, e in rows
    ]
    return [*lines, "", *words]


def _class(facts: dict[str, Any]) -> str:
    names = f"{facts['device']}, {facts['features']}, {facts['threads']} threads"
    return f"{names}, torch {facts['torch']}, load {facts['load']}"


def _number(value: float) -> str:
    """Three digits; a dash for what is not there."""
    return "–" if value != value else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
