"""The generated schema and config page are in step with the typed config."""

import json

import pytest
import yaml
from conftest import ROOT

from jstar.config import Study
from jstar.config.schema import config_readme, schema_text


def test_schema_and_page_are_in_step():
    hint = "run: python -m jstar.config.schema"
    assert (ROOT / "workflow/schemas/study.schema.json").read_text() == schema_text(), hint
    assert (ROOT / "config/README.md").read_text() == config_readme(), hint


def test_every_key_has_a_meaning():
    for line in config_readme().splitlines():
        if line.startswith("| `"):
            assert line.split("|")[3].strip(), line


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_file_passes_the_schema_and_is_named_like_its_file(path):
    jsonschema = pytest.importorskip("jsonschema")
    tree = yaml.safe_load(path.read_text())
    jsonschema.validate(tree, json.loads(schema_text()))
    assert Study.load(path).study == path.stem
