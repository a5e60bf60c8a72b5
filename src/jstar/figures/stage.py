"""The figures stage: draw one figure of a study from its tables."""

from importlib import import_module
from pathlib import Path

import matplotlib as mpl

from jstar.config import Study
from jstar.errors import JstarError, nearest
from jstar.figures import figures_of
from jstar.figures.style import save
from jstar.figures.tables import StudyTables, VariantTables, load_tables, load_variants
from jstar.records import provenance, write_json


def draw_figure(name: str, study: Study, fits: Path, curve: Path, out: Path) -> None:
    """Write out/`name`.pdf, .png and .json; the .json holds the numbers of the caption."""
    known = figures_of(study.kind)
    if name not in known:
        raise JstarError(
            f"figure '{name}' is unknown, allowed are {', '.join(known)}{nearest(name, known)}"
        )
    mpl.use("Agg")
    tables: StudyTables | VariantTables
    if study.kind == "diagnosis":
        tables = load_variants(fits, curve)
    else:
        tables = load_tables(fits, curve, study.fit.ema or study.train.ema[0])
    drawn, numbers = import_module(known[name]).draw(tables, study)
    save(drawn if isinstance(drawn, list) else [drawn], out / name)
    write_json(out / f"{name}.json", provenance(figure=name, numbers=numbers))
