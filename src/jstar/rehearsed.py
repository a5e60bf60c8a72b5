"""What `jstar rehearse` measured of a size, kept where `jstar plan` reads it."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jstar.config import Study
from jstar.hardware import cpu_name, find_gpu
from jstar.layout import Layout
from jstar.records import fingerprint, provenance, read_json, write_record

HOW = ("microbatch", "activation_checkpointing", "parallel", "resident")  # no number, but a speed


@dataclass(frozen=True)
class Rehearsal:
    """Measured numbers of one size, all processes together; None for what was not measured.

    memory: bytes, of the fullest process. evaluate_seconds: of one network on one device.
    """

    kind: str  # of the device
    processes: int
    threads: int  # of a process
    images_per_second: float
    memory: float | None
    compile_seconds: float
    save_seconds: float
    save_bytes: float
    snapshot_seconds: float
    snapshot_bytes: float
    evaluate_seconds: float | None = None


def write_rehearsal(layout: Layout, model: str, found: Rehearsal, **facts: Any) -> Path:
    """Keep it, in place of an earlier one of the same size on the same kind of hardware."""
    hardware = fingerprint([found.kind, found.processes, found.threads])
    path = layout.rehearsals / f"{model}.{hardware}.json"
    write_record(
        path,
        provenance(model=model, content=_content(layout.study, model), **asdict(found), **facts),
    )
    return path


def find_rehearsal(layout: Layout, model: str) -> Rehearsal | None:
    """What was measured of a size on the hardware that the study asks for, as it is trained now.

    Of GPUs the kind is `resources.gpu`, without them it is this processor. Raises JstarError for a
    record that was cut or edited.
    """
    resources = layout.study.resources
    for path in sorted(layout.rehearsals.glob(f"{model}.*.json")):
        tree = read_json(path)
        if tree.get("model") != model or tree.get("content") != _content(layout.study, model):
            continue
        found = Rehearsal(**{field.name: tree[field.name] for field in fields(Rehearsal)})
        gpu = find_gpu(found.kind)
        same = (
            gpu is not None and gpu.name == resources.gpu
            if resources.train_gpus
            else (found.kind, found.threads) == (cpu_name(), resources.train_threads)
        )
        if same and found.processes == resources.processes:
            return found
    return None


def rehearsal_table(layout: Layout) -> str:
    """What was measured, a line a size; empty where nothing was."""
    there = [(e.name, find_rehearsal(layout, e.name)) for e in layout.study.ladder]
    rows = [(name, found) for name, found in there if found is not None]
    if not rows:
        return ""
    first = rows[0][1]
    lines = [
        f"Measured by jstar rehearse on {first.processes} x {first.kind}:",
        f"{'size':<16}{'images/s':>12}{'memory MB':>12}{'compile s':>11}{'save s':>8}"
        f"{'save MB':>10}{'snapshot s':>12}{'evaluate s':>12}",
    ]
    for name, found in rows:
        memory = "-" if found.memory is None else f"{found.memory / 1e6:,.0f}"
        evaluate = "-" if found.evaluate_seconds is None else f"{found.evaluate_seconds:,.3g}"
        lines.append(
            f"{name:<16}{found.images_per_second:>12,.4g}{memory:>12}{found.compile_seconds:>11.3g}"
            f"{found.save_seconds:>8.3g}{found.save_bytes / 1e6:>10,.4g}"
            f"{found.snapshot_seconds:>12.3g}{evaluate:>12}"
        )
    return "\n".join(lines)


def _content(study: Study, model: str) -> dict[str, Any]:
    """What the numbers depend on besides the hardware."""
    config = study.train_of(model)
    how = {key: getattr(config, key) for key in HOW}
    precision = study.evaluate.precision
    tree: dict[str, Any] = json.loads(study.content("train", model))
    return {**tree, "how": how, "evaluate_precision": precision}
