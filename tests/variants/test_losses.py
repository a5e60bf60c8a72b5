"""A study of kind variants, walked through: its table, words and figures."""

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from project import copy_project, output, start

from jstar.config import Study
from jstar.data import prepare
from jstar.diagnose.adapters import from_run
from jstar.evaluate import write_losses
from jstar.figures import VARIANT_FIGURES
from jstar.figures.stage import draw_study_figure
from jstar.layout import Layout
from jstar.noise import process, total_weights
from jstar.optimal.stage import write_curve, write_oracle
from jstar.records import VARIANTS_COLUMNS, read_json
from jstar.train import train
from jstar.variants.losses import write_variants

VARIANTS = {"eps": {"process": "vp"}, "edm": {"process": "edm"}}


def study_tree(tiny_study, **overrides):
    entries = [{"name": n, "depth": 1, "variant": v} for n, v in VARIANTS.items()]
    return tiny_study(
        study="variants", kind="variants", ladder=entries,
        dataset={"holdout": 32}, train={"snapshots": 3}, **overrides,
    )  # fmt: skip


@pytest.fixture
def layout(tiny_study, tmp_path):
    """The study, run up to the losses of its two runs."""
    layout = Layout(Study.parse(study_tree(tiny_study)), tmp_path)
    study = layout.study
    prepare(study.dataset, layout.data)
    write_curve(study, layout.data, layout.curve)
    write_oracle(study, layout.data, layout.oracle)
    for model, seed in study.runs():
        run, state = layout.run(model, seed), layout.state(model, seed)
        train(study, model, seed, layout.data, run, state, device="cpu")
        losses = layout.losses(model, seed)
        write_losses(study, run, layout.data, layout.oracle, losses, state, "cpu")
    return layout


def test_table_words_and_figures(layout):
    text = write_variants(layout)
    frame = pd.read_csv(layout.variants / "last.csv")
    assert tuple(frame.columns) == VARIANTS_COLUMNS
    assert list(frame["model"].unique()) == list(VARIANTS)
    assert len(frame) == 2 * 6
    assert frame["images"].eq(6400).all()
    for model, variant in VARIANTS.items():
        rows = frame[frame["model"] == model]
        assert rows["process"].eq(variant["process"]).all()
        expected = total_weights(process(variant["process"]), rows["sigma"].to_numpy())
        np.testing.assert_allclose(rows["weight"], expected, rtol=1e-6)
        # the run's own total is made with the same weights
        losses = pd.read_csv(layout.losses(model, 0))
        last = losses[(losses["images"] == 6400) & (losses["split"] == "train")]
        total = last.loc[last["sigma"] == "total", "loss"].item()
        assert total == pytest.approx(float(rows["weight"] @ rows["loss"]), rel=1e-6)
    assert text.count("σ = ") >= 3
    page = (layout.variants / "summary.md").read_text()
    assert "| eps |" in page
    assert text in page
    for name in VARIANT_FIGURES:
        draw_study_figure(name, layout.study, layout.tables, layout.curve, layout.figures)
        assert (layout.figures / f"{name}.png").stat().st_size > 10_000
    numbers = read_json(layout.figures / "memorisation.json")["numbers"]
    assert numbers["measured"]
    top = read_json(layout.figures / "variants.json")["numbers"]["top"]
    assert {row["name"] for row in top} == set(VARIANTS)

    adapter = from_run(layout.run("eps", 0))
    assert adapter.process.name == "vp"
    assert not adapter.conditional


def test_the_workflow_of_variants(tiny_study, tmp_path):
    folder = copy_project(tmp_path)
    (folder / "config/variants.yaml").write_text(yaml.safe_dump(study_tree(tiny_study)))
    dry = start(folder, "snakemake", "-n", "--cores", 1, "--configfile", "config/variants.yaml")
    assert dry.wait(120) == 0, output(folder)
    text = output(folder)
    for rule in (
        "train_eps",
        "evaluate",
        "variants_losses",
        "figures",
    ):
        assert f"rule {rule}:" in text
    assert "rule fit:" not in text


def test_a_study_of_scaling_has_no_variants(jstar):
    _, _, err = jstar("variants", "losses", "--config", ROOT / "config/digits.yaml")
    assert "of kind 'scaling', only 'variants' has them" in err


def test_the_study_that_is_shipped_has_equal_sizes():
    study = Study.load(ROOT / "config/variants-fashion.yaml")
    assert study.kind == "variants"
    assert len(study.ladder) >= 7
    assert len({(e.depth, e.width) for e in study.ladder}) == 1
    facts = [study.train_of(e.name).process_facts() for e in study.ladder]
    assert len({str(f) for f in facts}) == len(facts)
