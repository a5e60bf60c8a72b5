"""The figures stage: draw one figure of a study from its tables."""

from importlib import import_module
from pathlib import Path

import matplotlib as mpl

from jstar.config import FiguresConfig, Study
from jstar.errors import JstarError, nearest
from jstar.figures import figures_of
from jstar.figures.style import save
from jstar.figures.tables import StudyTables, VariantTables, load_tables, load_variants
from jstar.manifest import parents, say_unrecorded
from jstar.records import provenance, write_record


def draw_study_figure(name: str, study: Study, fits: Path, curve: Path, out: Path) -> None:
    """Write out/`name`.pdf, .png and .json as the study's file says they look."""
    draw_figure(name, fits, curve, out, kind=study.kind, ema=study.ema, shown=study.figures)


def draw_figure(
    name: str,
    fits: Path,
    curve: Path | None,
    out: Path,
    *,
    kind: str = "scaling",
    ema: float | None = None,
    shown: FiguresConfig | None = None,
) -> None:
    """Write out/`name`.pdf, .png and .json; the .json holds the numbers of the caption.

    curve: table of J*, None for losses without one. ema: the EMA length that was fitted; None: the
    first of the table, as `jstar fit` takes it.
    """
    known = figures_of(kind, lengths=2, cooldown=True)
    if name not in known:
        raise JstarError(
            f"figure '{name}' is unknown, allowed are {', '.join(known)}{nearest(name, known)}"
        )
    mpl.use("Agg")
    tables: StudyTables | VariantTables
    if kind == "variants" and curve is not None:
        tables = load_variants(fits, curve)
    else:
        tables = load_tables(fits, curve, ema)
    drawn, numbers = getattr(import_module(known[name]), f"draw_{name}")(
        tables, shown or FiguresConfig()
    )
    files = save(drawn if isinstance(drawn, list) else [drawn], out / name)
    stated = tables.origin if isinstance(tables, StudyTables) else {}
    units = {key: stated[key] for key in ("loss_unit", "flop_convention") if key in stated}
    record = out / f"{name}.json"
    of = parents(record, [fits / tables.record, curve])
    write_record(record, provenance(figure=name, numbers=numbers, **units, **of), files)
    say_unrecorded([fits / tables.record, *([curve] if curve else [])])
