"""The documents say what the code says: statuses, verdicts, commands, keys."""

import ast
import doctest
import re

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from jstar.cli import app
from jstar.scaling.frontier import FrontierStatus
from jstar.scaling.laws import FitStatus
from jstar.scaling.verdict import VERDICTS

PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
READING = (ROOT / "docs/reading.md").read_text()
# In a table the number is the study's: `2 sizes, a joint law needs 3`.
TELL = ("_verdict", "_status", "joint_points")  # functions that return one
NUMBER = re.compile(r"\bN\b|\d+")
EXPLAINED = {NUMBER.sub("#", s) for s in re.findall(r"^\| `([^`]+)`", READING, re.MULTILINE)}


def said(tree):
    """Statuses that a file assigns to that name, or returns from a function that tells one."""
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Assign):
            names = [getattr(target, "id", "") for target in node.targets]
            found = [node.value] if "status" in names else []
        elif isinstance(node, ast.FunctionDef) and node.name in TELL:
            found = [part.value for part in ast.walk(node) if isinstance(part, ast.Return)]
        for value in found:
            parts = [value, *getattr(value, "__dict__", {}).values()]
            yield from (p.value for p in parts if isinstance(getattr(p, "value", None), str))
            if isinstance(value, ast.JoinedStr):
                yield "".join(getattr(part, "value", "") if isinstance(part, ast.Constant) else "#"
                              for part in value.values)  # fmt: skip


# What somebody measured: seconds of so many cores, or how many times as fast.
SPEED = re.compile(
    r"(times|x|%) (as fast|as slow|faster|slower)|"
    r"\d+ (seconds|minutes|hours)[^.|]{0,40} (on|of) (\w+ idle |\w+ )(cores?|threads?)"
)
SOURCE = re.compile(r"benchmarks/|benchmarks\.md|`(time )?jstar (plan|bench|rehearse|fit)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_speed_names_what_measured_it(page):
    if page.name == "benchmarks.md":
        return  # every table there names its command
    paragraphs = page.read_text(encoding="utf-8").split("\n\n")
    wrong = [part for part in paragraphs if SPEED.search(part) and not SOURCE.search(part)]
    assert wrong == []


@pytest.mark.parametrize(("sentence", "told"), [
    ("It is 2 times as fast.", True), ("40 % faster", True), ("within 3 % of it", False),
    ("takes 5 to 7 minutes on two idle cores", True), ("in ten seconds", False),
    ("takes 26 seconds on two idle cores", True), ("took 20 seconds on 2 cores", True),
])  # fmt: skip
def test_a_speed_is_known_when_it_is_seen(sentence, told):
    assert (SPEED.search(sentence) is not None) == told


def test_every_status_of_the_code_is_explained():
    statuses = {str(status) for status in [*FitStatus, *FrontierStatus]}
    for path in (ROOT / "src/jstar/scaling").glob("*.py"):
        statuses |= set(said(ast.parse(path.read_text())))
    assert {"the law does not hold", "no minimum inside"} <= statuses
    assert "# sizes, a joint law needs #" in statuses
    assert statuses - EXPLAINED == set()


def test_every_status_of_a_committed_table_is_explained():
    found = set()
    for path in (ROOT / "results/reference").rglob("*.csv"):
        table = pd.read_csv(path)
        if path.stem in ("fits", "approaches", "parametric", "frontier", "tune"):
            found |= set(table.get("status", pd.Series(dtype=str)).dropna())
    assert {"converged", "no crossing"} <= found
    assert {NUMBER.sub("#", status) for status in found} - EXPLAINED == set()


def test_every_verdict_is_explained():
    for name in ("reading", "verdicts"):
        text = (ROOT / f"docs/{name}.md").read_text()
        assert [word for word in VERDICTS if f"`{word}`" not in text] == []


def commands(group):
    """Names of a typer application's commands and groups."""
    for command in group.registered_commands:
        yield command.name or command.callback.__name__.replace("_", "-")
    for inner in group.registered_groups:
        yield inner.name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_exist(page):
    known = set(commands(app))
    used = set(re.findall(r"(?:^|`|&& )jstar ([a-z][a-z-]+)", page.read_text(), re.MULTILINE))
    assert used - known == set()


def test_the_site_has_every_page_once():
    class Loader(yaml.SafeLoader):
        """mkdocs.yml names Python functions."""

    tree = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)

    def pages(part):
        if isinstance(part, str):
            yield part
        for inner in part.values() if isinstance(part, dict) else part:
            if not isinstance(part, str):
                yield from pages(inner)

    listed = list(pages(tree["nav"]))
    assert sorted(set(listed)) == sorted(listed)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(listed)


def test_the_results_in_the_readme_are_those_of_the_results_page():
    page = (ROOT / "docs/results.md").read_text()
    rows = [line for line in page.split("## ")[0].splitlines() if line.startswith("|")]
    assert len(rows) > 4
    readme = (ROOT / "README.md").read_text().splitlines()
    assert [row for row in rows if row.replace("](#", "](docs/results.md#") not in readme] == []


def test_the_tests_that_are_named_are_there():
    tests = {str(path): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    name = re.compile(r"`([\w/]*\btest_\w+\.py)?(?:::)?(test_\w+)?`")
    named = {found for page in PAGES for found in name.findall(page.read_text())}
    named -= {("", "test_images")}  # a variable of an example
    assert len(named) > 20
    for file, function in named:
        texts = [text for path, text in tests.items() if path.endswith(file)]
        assert any(f"def {function}" in text for text in texts), (file, function)


def test_the_examples_of_the_python_reference_run():
    found = doctest.testfile(str(ROOT / "docs/api.md"), module_relative=False)
    assert (found.failed, found.attempted > 25) == (0, True)
    shown = re.findall(r"^::: (\S+)", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    called = (ROOT / "docs/api.md").read_text()
    assert [name for name in shown if not re.search(rf"\b{name.split('.')[-1]}\(", called)] == [
        "jstar.curve.OptimalLoss"  # what optimal_loss returns
    ]
