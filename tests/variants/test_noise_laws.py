"""jstar variants noise-laws: pairs of a study, their paired changes and intervals, the refusals."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from jstar.config import Study
from jstar.curve import read_curve
from jstar.data import prepare
from jstar.errors import JstarError
from jstar.figures.noise_laws import draw_noise
from jstar.layout import Layout
from jstar.noise import process, total_weights
from jstar.optimal.stage import write_curve
from jstar.records import write_json
from jstar.variants.noise_laws import LAW_COLUMNS, write_noise

LAW = {"law": "optimal_loss"}
SEEDS = [3, 4, 7]
FACTOR = {3: 0.8, 4: 0.9, 7: 0.85}  # gap with the optimal-loss law / gap without, by seed


def ladder(process_name="fm", **change):
    return [
        {"name": "other", "depth": 2, "variant": {"process": process_name}},
        {"name": "own", "depth": 1, "seeds": [9, *SEEDS], "variant": {"process": process_name}},
        {"name": "new", "depth": 1, "seeds": SEEDS,
         "variant": {"process": process_name, "noise": LAW}, **change},
    ]  # fmt: skip


def write_run(layout, model, seed, card, gap_S, fid):
    """The tables that training, evaluation and sampling leave, with chosen numbers."""
    run, sigma = layout.run(model, seed), layout.study.sigmas.values
    run.mkdir(parents=True)
    write_json(run / "run.json", {"card_id": card})
    rows = [
        {"snapshot": k, "ema": ema, "split": split, "sigma": s, "gap": g * (3 - k) * bad}
        for k in (1, 2)
        for ema, split, bad in ((0.1, "train", 1), (0.2, "train", 9), (0.1, "holdout", 9))
        for s, g in [*zip(sigma, gap_S, strict=True), ("total", 5.0)]
    ]
    pd.DataFrame(rows).to_csv(layout.losses(model, seed), index=False)
    quality = {"snapshot": [1, 2], "fid": [99, fid], "precision": [0.1, 0.7], "recall": [0.1, 0.6]}
    pd.DataFrame(quality).to_csv(layout.quality(model, seed), index=False)
    if model == "new":
        centres = np.geomspace(0.06, 17, 32)
        law = pd.DataFrame({"images": np.repeat([64, 640, 6400], 32), "sigma": np.tile(centres, 3)})
        columns = {"weight": 1.0, "gap": 0.5, "density": 0.17, "draws": 10.0}
        law.assign(**columns).to_csv(layout.noise_law(model, seed), index=False)


@pytest.fixture
def layout(tiny_study, tmp_path):
    """Runs of known gaps: those of the optimal-loss law are FACTOR times the others'."""
    study = Study.parse(tiny_study(kind="variants", ladder=ladder(), train={"ema": [0.1, 0.2]}))
    made = Layout(study, tmp_path)
    card = prepare(study.dataset, made.data).id
    write_curve(study, made.data, made.curve)
    gap_S = np.linspace(0.01, 0.03, 6)
    for seed in SEEDS:
        base = gap_S * (1 + 0.01 * seed)
        write_run(made, "own", seed, card, base, fid=2.0 + 0.01 * seed)
        write_run(made, "new", seed, card, FACTOR[seed] * base, fid=1.5)
    return made


def test_changes_are_paired_by_seed_with_students_interval(layout):
    write_noise(layout)
    effect = pd.read_csv(layout.noise_laws / "effect.csv").set_index("quantity")
    assert effect["process"].eq("fm").all()
    assert effect["seeds"].eq(3).all()
    logs = np.log([FACTOR[s] for s in SEEDS])
    interval = ttest_rel(logs, 0 * logs).confidence_interval(0.95)
    gaps = effect[effect.index.str.startswith("gap")]
    assert len(gaps) == 3
    for _, row in gaps.iterrows():
        assert row["change"] == pytest.approx(np.exp(logs.mean()) - 1)
        assert row["change_low"] == pytest.approx(np.exp(interval.low) - 1)
        assert row["change_high"] == pytest.approx(np.exp(interval.high) - 1)
    curve = read_curve(layout.curve)
    gap_S = np.linspace(0.01, 0.03, 6)
    mean = np.mean([1 + 0.01 * s for s in SEEDS])
    for name in ("edm", "fm"):
        expected = total_weights(process(name), curve.sigma) @ gap_S * mean
        found = effect.loc[f"gap, {name.upper()}'s weight and law", "own"]
        assert found == pytest.approx(expected)
    known = curve.sigma > curve.critical_sigma
    expected = np.mean(gap_S[known] / curve.loss[known]) * mean
    assert effect.loc["gap / J*, mean over sigma > sigma*", "own"] == pytest.approx(expected)
    fid = effect.loc["FID of samples"]
    assert (fid["own"], fid["optimal_loss"]) == pytest.approx((2 + 0.14 / 3, 1.5))
    assert effect.loc["precision", "change"] == pytest.approx(0)
    by_sigma = pd.read_csv(layout.noise_laws / "gaps.csv")
    assert by_sigma["change"].to_numpy() == pytest.approx(np.exp(logs.mean()) - 1)
    assert "-15.1 %" in (layout.noise_laws / "effect.md").read_text()


def test_law_and_figures(layout):
    write_noise(layout)
    law = pd.read_csv(layout.noise_laws / "law.csv")
    assert tuple(law.columns) == LAW_COLUMNS
    assert len(law) == 3 * 3 * 32
    sigma = law["sigma"].to_numpy()
    fm, edm = process("fm"), process("edm")
    np.testing.assert_allclose(law["own_density"], fm.law.density(sigma), rtol=1e-6)
    np.testing.assert_allclose(law["own_weight"], fm.weight(sigma) / edm.weight(sigma), rtol=1e-6)
    draw_noise(layout.noise_laws)
    for name in ("law", "effect"):
        assert (layout.noise_laws / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (layout.noise_laws / f"{name}.png").stat().st_size > 10_000


def test_without_samples_there_is_no_quality(layout):
    layout.quality("new", 4).unlink()
    write_noise(layout)
    effect = pd.read_csv(layout.noise_laws / "effect.csv")
    assert len(effect) == 3
    assert effect["quantity"].str.startswith("gap").all()


@pytest.mark.parametrize(
    "change",
    [{"depth": 2}, {"seeds": [1]}, {"variant": {"process": "edm", "noise": LAW}}],
    ids=["another size", "no common seed", "another process"],
)
def test_entries_that_differ_otherwise_are_no_pair(change, layout, tiny_study):
    study = Study.parse(tiny_study(kind="variants", ladder=ladder(**change)))
    assert study.noise_pairs() == []
    with pytest.raises(JstarError, match=r"no two ladder entries that share a seed"):
        write_noise(replace(layout, study=study))
    assert not layout.noise_laws.exists()


def test_runs_of_another_distribution_are_refused(layout):
    path = layout.run("new", 7) / "run.json"
    path.write_text(json.dumps({"card_id": "another"}))
    with pytest.raises(JstarError, match="another"):
        write_noise(layout)
    assert not layout.noise_laws.exists()
