"""Small studies made of tables alone: simulated losses and J*, fitted by the stage fit."""

from dataclasses import dataclass
from types import SimpleNamespace

import matplotlib as mpl
import pytest
import yaml
from conftest import ROOT
from docutils.core import publish_parts
from jinja2 import Environment

from jstar.config import Study
from jstar.figures.inspect import study_tables
from jstar.figures.tables import StudyTables
from jstar.layout import Layout
from jstar.records import write_json, write_table
from jstar.scaling.simulate import TrueStudy, simulate_study
from jstar.scaling.stage import write_fits

mpl.use("Agg")

SIGMAS = (0.05, 0.5, 4.0, 15.0)
TRUTHS = {
    "whole": TrueStudy(sizes=(1e5, 1e7, 5), images=(1e4, 3e6, 12), seeds=2, sigmas=SIGMAS),
    # Two sizes carry no interval: no law may be quoted.
    "two sizes": TrueStudy(sizes=(1e5, 1e6, 2), images=(1e4, 3e6, 6), sigmas=SIGMAS),
}


@dataclass(frozen=True)
class Fitted:
    """A study of tables: its file, the folders, and the tables as figures read them."""

    file: str
    layout: Layout
    tables: StudyTables


@pytest.fixture(scope="session")
def caption():
    """`caption(name, numbers)`: a caption's HTML, set as Snakemake's report sets it."""
    environment = Environment(trim_blocks=True, lstrip_blocks=True)

    def render(name, numbers=None, **config):
        source = (ROOT / "workflow/report" / f"{name}.rst").read_text()
        config |= {
            "numbers": lambda output: numbers,
            "show": lambda value, form: "–" if value is None else format(value, form),
        }
        job = SimpleNamespace(config=config, output=[], wildcards=SimpleNamespace(notebook="fits"))
        text = environment.from_string(source).render(snakemake=job)
        return publish_parts(text, writer="html")["html_body"]

    return render


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """`fitted(name)`: the study of one of TRUTHS."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = _make(tmp_path_factory.mktemp("study"), TRUTHS[name])
        return made[name]

    return make


def _make(root, truth):
    tree = {
        "study": "simulated",
        "dataset": {"name": "simulated", "source": "digits"},
        "ladder": [{"name": "n0", "depth": 1}],
        "train": {"images": 1000, "batch": 10, "snapshots": 2, "first_snapshot": 100},
        "fit": {"bootstrap": 100},
        "figures": {"sigmas": 2},
    }
    (root / "study.yaml").write_text(yaml.safe_dump(tree))
    study = Study.load(root / "study.yaml")
    layout = Layout(study, root / "results")
    losses, curve = simulate_study(truth, seed=0)
    write_table(layout.curve, curve, {})
    facts = {"count": 1000, "closure": 6.9, "log_count": 6.908}
    write_json(layout.curve.with_suffix(".json"), facts)
    table = layout.losses("n0", 0)
    write_table(table, losses, {})
    write_fits([table], layout.curve, layout.fits, config=study.fit, process=study.process)
    return Fitted(str(root / "study.yaml"), layout, study_tables(layout))
