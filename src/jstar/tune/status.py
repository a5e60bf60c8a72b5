"""Where the tuning of every size stands: the first rows of `jstar status`."""

from jstar.data.check import source_shape
from jstar.layout import Layout
from jstar.records import fingerprint, read_json
from jstar.train.events import run_events
from jstar.train.status import STATE_FILE, RunStatus, is_held
from jstar.tune.trials import planned_images


def tune_status(layout: Layout) -> list[RunStatus]:
    """The tuning of every size that is tuned; images: of all its trials, as far as is planned."""
    study = layout.study
    if not study.tuned_models:
        return []
    shape, known = source_shape(study.dataset)[1:], layout.tuned().study.tuned_models
    rows = []
    for model in study.tuned_models:
        state, facts = layout.tune_state(model), {}
        if (state / STATE_FILE).is_file():
            facts = read_json(state / STATE_FILE)
        if facts.get("tune") != fingerprint(study.content("tune", model)):
            facts = {}
        if model not in known:
            what = "finished"
        elif is_held(state):
            what = "running"
        else:
            what = "stopped" if facts else "waiting"
        images = int(facts.get("images", 0))
        planned = planned_images(study, model, run_events(study, model, shape).flops_per_image)
        rows.append(
            RunStatus(
                run=f"tune {model}",
                state=what,
                images=images,
                total=images if what == "finished" else max(images, planned),
                loss=facts.get("loss"),
                gap=facts.get("gap"),
                images_per_second=None,
                seconds_left=None,
            )
        )
    return rows
