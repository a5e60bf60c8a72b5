"""Small studies made of tables alone: simulated losses and J*, fitted by the stage fit."""

from dataclasses import dataclass
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from docutils.core import publish_parts
from jinja2 import Environment
from known_laws import CHINCHILLA, by_budget

from jstar.config import Study
from jstar.constants import COOLDOWN
from jstar.figures.inspect import study_tables
from jstar.figures.tables import StudyTables
from jstar.layout import Layout
from jstar.records import write_json, write_table
from jstar.scaling.design import JointTruth, StudyDesign, simulate_design
from jstar.scaling.simulate import TrueStudy, simulate_study
from jstar.scaling.stage import write_fits

mpl.use("Agg")

SIGMAS = (0.05, 0.5, 4.0, 15.0)
TRUTHS = {
    "whole": TrueStudy(sizes=(1e5, 1e7, 5), images=(1e4, 3e6, 12), seeds=2, sigmas=SIGMAS),
    # Two sizes carry no interval: no law may be quoted.
    "two sizes": TrueStudy(sizes=(1e5, 1e6, 2), images=(1e4, 3e6, 6), sigmas=SIGMAS),
}


# Equal images: no two sizes cross. The floor is 1.3 J* at the smaller noise scale, J* at the other.
FLOORS = {0.5: 1.3, 4.0: 1.0}
EQUAL_IMAGES = StudyDesign.even(tuple(np.geomspace(1e5, 1e8, 5)), (3e6,) * 5, 12, 0.2)


def simulate(name):
    """Tables of losses and of J*; `no J*`: the same losses, with nothing known of their floor."""
    if name == "whole":
        return with_cooldowns(*simulate_study(TRUTHS[name], seed=0))
    if name in TRUTHS:
        return simulate_study(TRUTHS[name], seed=0)
    if name == "by budget":
        table = by_budget(CHINCHILLA, np.geomspace(6e18, 3e21, 6), 7, 1.2, 0.01, jitter=0.02)
        curve = pd.DataFrame({"sigma": SIGMAS[1:3], "stderr": 0.0})
        curve["loss"] = CHINCHILLA["E"] + curve["sigma"]
        losses = [table.assign(sigma=s, loss=table["loss"] + s) for s in curve["sigma"]]
        return pd.concat(losses, ignore_index=True), curve
    if name == "averages":
        return averaged(*simulate_study(TRUTHS["two sizes"], seed=0))
    frames = [
        [frame.assign(sigma=sigma) for frame in simulate_design(
            EQUAL_IMAGES, JointTruth(floor=floor), 0, int(10 * sigma)
        )]
        for sigma, floor in FLOORS.items()
    ]  # fmt: skip
    losses, curve = (pd.concat(frame, ignore_index=True) for frame in zip(*frames, strict=True))
    return (losses.drop(columns="gap") if name == "no J*" else losses), curve


def averaged(losses, curve):
    """Seven EMA lengths; the gap is lowest at 0.12 for the smaller size, else at the longest."""
    best = losses["model"].map({"n0": 0.12, "n1": 0.2})
    made = [
        losses.assign(ema=ema, gap=losses["gap"] * (1 + 0.1 * np.log(ema / best) ** 2))
        for ema in (0.1, 0.05, 0.06, 0.08, 0.12, 0.16, 0.2)
    ]
    return pd.concat(made, ignore_index=True), curve


def with_cooldowns(losses, curve):
    """Beside every third snapshot's average the end of a cooldown, its gap 5 % lower."""
    ends = losses[losses["snapshot"] % 3 == 2]
    ends = ends.assign(ema=COOLDOWN, gap=0.95 * ends["gap"], loss=ends["loss"] - 0.05 * ends["gap"])
    return pd.concat([losses, ends], ignore_index=True), curve


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
            "numbers": lambda output, of: {name: numbers}[of],
            "reading": lambda output: ["digits: no file", "classes: 10"],
            "verified": lambda: "9 files: 9 intact",
            "show": lambda value, form: "–" if value is None else format(value, form),
        }
        job = SimpleNamespace(config=config, output=[], wildcards=SimpleNamespace(notebook="fits"))
        text = environment.from_string(source).render(snakemake=job)
        return publish_parts(text, writer="html")["html_body"]

    return render


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """`fitted(name)`: a study of TRUTHS, `by budget`, `no crossing`, `no J*`, `averages`."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = _make(tmp_path_factory.mktemp("study"), name)
        return made[name]

    return make


def _make(root, name):
    tree = {
        "study": "simulated",
        "dataset": {"name": "simulated", "source": "digits"},
        "ladder": [{"name": "n0", "depth": 1}],
        "train": {"images": 1000, "batch": 10, "snapshots": 2, "first_snapshot": 100},
        "fit": {"bootstrap": 100, "calibration": 100},
        "figures": {"sigmas": 2},
    }
    (root / "study.yaml").write_text(yaml.safe_dump(tree))
    study = Study.load(root / "study.yaml")
    layout = Layout(study, root / "results")
    losses, curve = simulate(name)
    write_table(layout.curve, curve, {})
    facts = {"count": 1000, "closure": 6.9, "log_count": 6.908}
    write_json(layout.curve.with_suffix(".json"), facts)
    table = layout.losses("n0", 0)
    write_table(table, losses, {})
    known = None if name == "no J*" else layout.curve
    write_fits([table], known, layout.fits, config=study.fit, process=study.process)
    return Fitted(str(root / "study.yaml"), layout, study_tables(layout))
