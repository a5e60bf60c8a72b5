"""The house: every public name stands for one thing, and no room imports upwards."""

import ast
from collections import defaultdict

from conftest import ROOT

PACKAGE = ROOT / "src" / "jstar"
FILES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
# Rooms and files at the top, from the ground up. Each may import what FREE names and stands above
# it here, and of the rest only what its own list names.
FREE = {"errors", "constants", "records", "manifest", "progress", "noise", "curve", "config"}
ROOMS = {
    "errors": set(), "constants": set(), "extras": set(), "torch_device": set(),
    "temporary": set(), "private": {"temporary"},
    "records": {"__version__", "temporary"}, "manifest": set(), "progress": set(), "pool": set(),
    "application": set(), "typeset": set(), "native": {"private"},
    "noise": set(), "curve": set(), "averages": set(),
    "hardware": set(), "probe": {"hardware", "native", "pool", "private"},
    "config": {"averages", "hardware"}, "layout": set(),
    "data": {"pool", "private", "torch_device"},
    "optimal": {"data", "native", "probe", "torch_device"},
    "model": {"native", "probe"},
    "train": {"averages", "data", "hardware", "layout", "model", "optimal", "torch_device"},
    "evaluate": {"data", "optimal", "torch_device", "train"},
    "rehearsed": {"hardware", "layout"},
    "preflight": {"data", "evaluate", "hardware", "layout", "model", "pool", "rehearsed", "train"},
    "scaling": {"native", "pool", "typeset"},
    "tune": {"data", "evaluate", "layout", "model", "optimal", "scaling", "train"},
    "sampling": {"data", "evaluate", "torch_device", "train"},
    "figures": {"layout", "sampling", "scaling"},
    "report": {"figures", "layout", "scaling"},
    "stage_costs": {"data", "figures", "layout", "train"},
    "plan": {"data", "layout", "model", "pool", "rehearsed", "scaling", "stage_costs", "train",
             "tune"},
    "rehearse": {"data", "evaluate", "hardware", "layout", "model", "plan", "pool", "preflight",
                 "rehearsed", "torch_device", "train"},
    "run_study": {"application", "layout", "pool", "scaling", "stage_costs", "train"},
    "diagnose": {
        "data", "evaluate", "figures", "optimal", "sampling", "torch_device", "train", "typeset",
    },
    "variants": {"data", "diagnose", "layout", "optimal", "typeset"},
    "bench": {"application", "data", "hardware", "model", "optimal", "probe", "train"},
    "verify": {"data", "figures", "layout"},
    "cluster": {"pool", "private", "train"},
}  # fmt: skip
TOP = {"commands", "cli", "__main__", "__init__"}  # import what they call


def imported(tree):
    """Rooms and top files of jstar that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "jstar":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            full = [node.module or ""] if isinstance(node, ast.ImportFrom) else node.names
            names = [getattr(name, "name", name).split(".") for name in full]
            yield from (name[1] for name in names if name[0] == "jstar" and len(name) > 1)


def test_no_room_imports_upwards():
    order = [*ROOMS]
    wrong = []
    for path, tree in FILES.items():
        room = path.with_suffix("").parts[0]
        if room in TOP:
            continue
        below = {name for name in order[: order.index(room)] if name in FREE} | ROOMS[room]
        wrong += [(str(path), name) for name in imported(tree) if name not in below | {room}]
    assert wrong == []
    for place, room in enumerate(order):
        assert ROOMS[room] <= {*order[:place], "__version__"}, room


def test_no_public_name_stands_for_two_things():
    """Commands are left out: a command and what it calls may share their word."""
    places = defaultdict(list)
    for path, tree in FILES.items():
        if path.parts[0] != "commands":
            for node in tree.body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                    places[node.name].append(str(path))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
