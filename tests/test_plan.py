"""The plan: exact FLOPs before anything is spent, and where its speed comes from."""

import json

from jstar.config import Study
from jstar.layout import Layout
from jstar.model import flops, model_config
from jstar.plan import plan_study


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
    assert "3 runs of 6,400 images" in text


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
