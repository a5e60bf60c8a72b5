"""The plan: exact FLOPs before anything is spent, its speed, and what the design can tell."""

import json

import pytest
import yaml
from conftest import ROOT

from jstar import plan
from jstar.config import Study
from jstar.layout import Layout
from jstar.model import flops, model_config, network_choice, parameters
from jstar.model.network_choice import IN_C, NetworkChoice
from jstar.plan import plan_study, study_design
from jstar.train import memory
from jstar.train.events import training_events


def layout(tiny_study, tmp_path, **resources):
    return Layout(Study.parse(tiny_study(resources=resources)), tmp_path)


def test_flops_are_three_forward_passes_an_image(tiny_study, tmp_path):
    place = layout(tiny_study, tmp_path)
    text = plan_study(place)
    study = place.study
    config = model_config(study.model, study.entry("d2"), (1, 8, 8), 0)
    row = next(line for line in text.splitlines() if line.startswith("d2-s0"))
    assert f"{3 * flops(config) * 6400:.3g}" in row
    assert "guessed" in text
    assert row.split()[2] == "6,400"


def test_cooldowns_are_counted(tiny_study, tmp_path):
    plain = layout(tiny_study, tmp_path, flops_per_second=1e6).study
    cooldown = {"share": 0.25, "snapshots": 2}  # of 16 and of 100 steps
    study = Study.parse(tiny_study(train={"cooldown": cooldown},
                                   resources={"flops_per_second": 1e6}))  # fmt: skip
    text, before = plan_study(Layout(study, tmp_path)), plan_study(Layout(plain, tmp_path))
    config = model_config(study.model, study.entry("d2"), (1, 8, 8), 0)
    row = next(line for line in text.splitlines() if line.startswith("d2-s0"))
    images = 6400 + 64 * (4 + 25)
    assert row.split()[2] == f"{images:,}"
    assert f"{3 * flops(config) * images:.3g}" in row
    assert f"Cooldowns are {64 * 29 / images:.0%} of the runs' FLOPs." in text
    assert "Cooldowns" not in before

    def disk(plan):
        number, unit = next(r for r in plan.splitlines() if r.startswith("d2-s0")).split()[-2:]
        return float(number) * {"kB": 1, "MB": 1e3}[unit]

    # Two ends, and three more checkpoints of four kinds of weights each.
    assert disk(text) / disk(before) == pytest.approx((6 + 2 + 5 * 4) / (6 + 2 * 4), rel=0.01)


def test_a_stated_speed_gives_the_hours(tiny_study, tmp_path):
    place = layout(tiny_study, tmp_path, flops_per_second=1e6)
    study = place.study
    seconds = sum(
        3 * flops(model_config(study.model, study.entry(m), (1, 8, 8), 0)) * 6400 / 1e6
        for m, _ in study.runs()
    )
    text = plan_study(place)
    assert f"{seconds / 3600:.3g} hours" in text
    assert "stated in resources.flops_per_second" in text


def test_only_a_finished_run_of_the_same_configuration_counts_as_measured(tiny_study, tmp_path):
    place = layout(tiny_study, tmp_path, flops_per_second=1e6)
    run = place.run("d1", 0) / "run.json"
    run.parent.mkdir(parents=True)
    content = json.loads(place.study.content("train", "d1"))
    run.write_text(json.dumps({"config": content, "flops_per_second": 5e9, "processes": 1}))
    assert "measured by finished runs" in plan_study(place)
    content["train"]["batch"] = 7
    run.write_text(json.dumps({"config": content, "flops_per_second": 5e9, "processes": 1}))
    assert "measured" not in plan_study(place)


def test_the_design_of_a_study_is_what_it_trains(tiny_study):
    study = Study.parse(tiny_study(fit={"min_images": 1000}))
    design = study_design(study)
    configs = [model_config(study.model, study.entry(m), (1, 8, 8), 0) for m in ("d1", "d2")]
    assert design.params == tuple(parameters(c) for c in configs)
    assert design.cost == pytest.approx([3 * flops(c) for c in configs])
    assert design.seeds == (2, 1)
    steps = training_events(study.train, 1.0, 1).snapshots
    kept = tuple(64 * step for step in steps if 64 * step >= 1000)
    assert design.images == (kept, kept)
    assert 1 < len(kept) < len(steps)
    train = {"cooldown": {"share": 0.25, "snapshots": 2}}
    ends = Study.parse(tiny_study(train=train, fit={"ema": "cooldown"}))
    assert study_design(ends).images == ((16 * 64, 6400), (16 * 64, 6400))


@pytest.mark.parametrize("pilot", [False, True])
def test_equal_images_are_called_what_they_are(jstar, tmp_path, pilot):
    """The first default study: every size saw the same images, and nothing crossed."""
    tree = yaml.safe_load((ROOT / "config/digits.yaml").read_text())
    tree["train"]["images"] = 220_000
    tree["ladder"] = [{"name": f"d{d}", "depth": d, "width": 8 * d} for d in range(2, 8)]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    law = tmp_path / "parametric.csv"
    law.write_text(
        "sigma,of,floor,E,A,a,B,b,N0,D0,status\n"
        "total,fitted,optimal,.1505,.179,.16,.199,.42,8.94e4,6.46e4,converged\n"
    )  # of the committed digits tables, by the joint law
    status, out, _ = jstar("plan", "--config", tmp_path / "study.yaml", "--studies", 2,
                           *(["--pilot", law] if pilot else []))  # fmt: skip
    assert status == 0
    assert "No two of the 6 sizes cross: every smaller size is still the best" in out
    assert "Images per size that would make all of them cross: " in out
    rows = {row.split("  ")[0]: row for row in out.splitlines()[-2:]}
    assert "0 of 5" in rows["this design"]
    assert "5 of 5" in rows["with those images"]


def test_a_plan_of_two_sizes_says_what_it_lacks(jstar, tiny_study, tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny_study()))
    status, out, _ = jstar("plan", "--config", tmp_path / "study.yaml")
    assert status == 0
    assert "3 runs on 1,797 images" in out
    assert "2 sizes, a joint law needs 3" in out
    single = tiny_study(ladder=[{"name": "d1", "depth": 1}])
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(single))
    status, out, _ = jstar("plan", "--config", tmp_path / "study.yaml")
    assert status == 0
    assert "1 sizes" in out


@pytest.mark.parametrize(
    ("times", "said"), [(0.6017, "0.602"), (2.0, "2"), (99.4, "99.4"), (1404.3, "1,404")]
)
def test_passes_stay_in_their_column(times, said):
    """`1.4e+03` ran into the images beside it."""
    assert plan._passes(times) == said


def test_what_is_timed_is_timed_as_in_a_run(tiny_study, monkeypatch):
    """Its answers are kept for the runs, whose freed memory stays theirs."""
    done = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(
        network_choice, "choose_network",
        lambda *_: done.append("timed") or NetworkChoice(IN_C, "it is faster"),
    )  # fmt: skip
    words = plan._network_words(Study.parse(tiny_study()), (1, 8, 8))
    assert done == ["kept", "timed", "timed"]
    assert words == "Networks are computed in C for d1, d2 (it is faster)."
