"""The tune stage: the trials of one size and the rate they choose; the tables of all sizes."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.manifest import parents
from jstar.model import flops, model_config, parameters
from jstar.records import fingerprint, provenance, read_json, read_table, write_json, write_table
from jstar.train.loop import TrainStatus
from jstar.train.parallel import join_ranks
from jstar.train.status import STATE_FILE, hold_state
from jstar.train.stop import listen
from jstar.tune.minimum import Minimum, find_minimum, next_rate
from jstar.tune.trials import Bench, RateTrial, prior_rate, trial_images, tune_batches

TUNE_COLUMNS = (
    "model", "params", "width", "batch", "prior_rate", "rate", "rate_low", "rate_high", "loss",
    "gap", "prior_loss", "gain_percent", "cost_percent", "trials", "status",
)  # fmt: skip
TRIALS_COLUMNS = (
    "model", "params", "width", "batch", "rate", "factor", "images", "flops", "loss", "gap",
    "gap_se", "status",
)  # fmt: skip


def tune_size(layout: Layout, model: str, *, device: str | None = None) -> TrainStatus:
    """Choose the learning rate of the size `model`: rate.json, and trials.csv beside it.

    Resumes: trials that are finished are only measured again, the one in progress goes on. On a
    signal or when train.time_budget_minutes are over it returns `finished=False`. Under torchrun
    all ranks call this. Raises JstarError if the entry gives its rate, if every trial diverges, and
    as `jstar.train.train` does.
    """
    study = layout.study
    study.entry(model)
    if model not in study.tuned_models:
        why = "tune.enabled = false" if not study.tune.enabled else "it gives its learning_rate"
        raise JstarError(f"tune: the ladder entry '{model}' is not to be tuned, {why}")
    minutes = study.train.time_budget_minutes
    with (
        listen(None if minutes is None else 60 * minutes) as stop,
        join_ranks(device, study.train.rank_timeout_minutes) as ranks,
    ):
        bench = Bench(layout, model, ranks, stop)
        if not ranks.first:
            return _tune(bench)
        with hold_state(layout.tune_state(model)):
            return _tune(bench)


def _tune(bench: Bench) -> TrainStatus:
    study, model = bench.layout.study, bench.model
    own, prior = study.train_of(model).batch, prior_rate(study, model)
    found: list[tuple[Minimum, list[RateTrial]]] = []
    for batch in tune_batches(study, model):
        # Adam's best rate grows about as the root of the batch (arXiv 2205.10287).
        begin = prior if not found else found[0][0].rate * (batch / own) ** 0.5
        trials = _sweep(bench, batch, begin, done=[t for _, ts in found for t in ts])
        if isinstance(trials, TrainStatus):
            return trials
        rate_T, loss_T = (np.array([getattr(t, c) for t in trials]) for c in ("rate", "loss"))
        found.append((find_minimum(rate_T, loss_T, study.tune.seed), trials))
    if bench.ranks.first:
        _write(bench, prior, found)
    return TrainStatus(True, sum(t.images for _, trials in found for t in trials), "finished")


def _sweep(
    bench: Bench, batch: int, begin: float, done: list[RateTrial]
) -> list[RateTrial] | TrainStatus:
    """The trials of one batch, by increasing rate."""
    study, model = bench.layout.study, bench.model
    tried: dict[float, RateTrial] = {}
    cost = 3 * _flops(bench)
    images = trial_images(study, model, cost, batch)
    losses: dict[float, float] = {}
    while (rate := next_rate(losses, begin, study.tune.factors)) is not None:
        trial = bench.try_rate(rate, batch, images)
        if isinstance(trial, TrainStatus):
            return trial
        tried[rate], losses[rate] = trial, trial.loss
        _say(bench, [*done, *tried.values()])
    if not np.isfinite(list(losses.values())).any():
        raise JstarError(
            f"tune: every trial of '{model}' diverged, down to the learning rate "
            f"{min(losses):g}; lower train.learning_rate"
        )
    return [tried[rate] for rate in sorted(tried)]


def _flops(bench: Bench) -> float:
    """FLOPs of a forward pass of one image."""
    study, card = bench.layout.study, bench.dataset.card
    return flops(model_config(study.model, study.entry(bench.model), card.shape, card.classes))


def _say(bench: Bench, trials: list[RateTrial]) -> None:
    """Where the tuning stands, for `jstar status`."""
    if bench.ranks.first:
        gap = min(trial.gap for trial in trials)
        facts = {
            "tune": fingerprint(bench.layout.study.content("tune", bench.model)),
            "trials": len(trials),
            "images": sum(trial.images for trial in trials),
            "loss": bench.floor + gap,
            "gap": gap,
        }
        write_json(bench.layout.tune_state(bench.model) / STATE_FILE, facts)


def _write(bench: Bench, prior: float, found: list[tuple[Minimum, list[RateTrial]]]) -> None:
    """rate.json, trials.csv and, last, trials.json, which says of which study they are."""
    layout, study, model = bench.layout, bench.layout.study, bench.model
    card, table = bench.dataset.card, layout.trials(model)
    config = model_config(study.model, study.entry(model), card.shape, card.classes)
    size = {"model": model, "params": parameters(config), "width": study.width(model)}
    rows = [
        {
            **size,
            "factor": trial.rate / prior,
            "flops": trial.images * 3 * flops(config),
            "status": "finished" if np.isfinite(trial.loss) else "diverged",
            **asdict(trial),
        }
        for _, tried in found
        for trial in tried
    ]
    best, trials = min(found, key=lambda pair: pair[0].loss)
    prior_loss = min(found[0][1], key=lambda trial: abs(trial.rate / prior - 1)).loss
    chosen = {
        **size,
        "batch": trials[0].batch,
        "prior_rate": prior,
        "rate": best.rate,
        "rate_low": best.low,
        "rate_high": best.high,
        "loss": best.loss,
        "gap": best.loss - bench.floor,
        "prior_loss": prior_loss,
        "gain_percent": 100 * (1 - best.loss / prior_loss),
        "cost_percent": 100 * best.cost,
        "trials": len(rows),
        "status": best.status,
    }
    table.with_suffix(".json").unlink(missing_ok=True)
    rate: dict[str, Any] = {"learning_rate": best.rate}
    write_json(layout.rate(model), rate | ({"batch": trials[0].batch} if len(found) > 1 else {}))
    facts = provenance(
        card_id=card.id,
        draws=len(bench.draws.index_M),
        seed=study.tune.seed,
        content=json.loads(study.content("tune", model)),
        chosen=chosen,
        **parents(table, [layout.oracle / "oracle.json", layout.data / "card.json"]),
    )
    frame = pd.DataFrame(rows, columns=list(TRIALS_COLUMNS)).replace(np.inf, np.nan)
    write_table(table, frame, facts, [layout.rate(model)])


def write_tuning(layout: Layout) -> pd.DataFrame:
    """Write tune.csv, one row a size, and trials.csv of all sizes.

    Raises JstarError naming the first size that is still to be tuned.
    """
    models = layout.study.tuned_models
    if not models:
        raise JstarError(f"tune: study '{layout.study.study}' does not tune, tune.enabled = false")
    for model in models:
        layout.tuned(model)
    facts = [read_json(layout.trials(model).with_suffix(".json")) for model in models]
    chosen = [{k: np.nan if v is None else v for k, v in one["chosen"].items()} for one in facts]
    frame = pd.DataFrame(chosen, columns=list(TUNE_COLUMNS))
    trials = pd.concat([read_table(layout.trials(model)) for model in models], ignore_index=True)
    origin = provenance(
        study=layout.study.study,
        card_id=facts[0]["card_id"],
        draws=facts[0]["draws"],
        share=layout.study.tune.share,
        factors=layout.study.tune.factors,
        numbers=_numbers(frame),
        **parents(layout.tune / "tune.json", [layout.trials(model) for model in models]),
    )
    write_table(layout.tune / "trials.csv", trials, origin)
    write_table(layout.tune / "tune.csv", frame, origin)
    return frame


def _numbers(tune: pd.DataFrame) -> dict[str, Any]:
    """What the caption says: every size's rate, the fall of rates over width, gain and cost."""
    rows = tune.sort_values("params")
    slope = float("nan")
    if rows["width"].nunique() > 2:
        slope = float(np.polyfit(np.log(rows["width"]), np.log(rows["rate"]), 1)[0])
    return {
        "sizes": rows.to_dict("records"),
        "trials": int(rows["trials"].sum()),
        "slope": slope,
        "gain_percent": float(rows["gain_percent"].max()),
        "cost_percent": float(rows["cost_percent"].max()),
        "edge": int((rows["status"] != "inside").sum()),
    }
