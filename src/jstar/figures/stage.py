"""The figures stage: draw one figure of a study from its tables."""

from importlib import import_module
from pathlib import Path

import matplotlib as mpl

from jstar.config import Study
from jstar.errors import JstarError, nearest
from jstar.figures import FIGURES
from jstar.figures.style import save
from jstar.figures.tables import load_tables
from jstar.records import provenance, write_json


def draw_figure(name: str, study: Study, fits: Path, curve: Path, out: Path) -> None:
    """Write out/`name`.pdf, .png and .json; the .json holds the numbers of the caption."""
    if name not in FIGURES:
        raise JstarError(
            f"figure '{name}' is unknown, allowed are {', '.join(FIGURES)}{nearest(name, FIGURES)}"
        )
    mpl.use("Agg")
    tables = load_tables(fits, curve, study.fit.ema or study.train.ema[0])
    drawn, numbers = import_module(FIGURES[name]).draw(tables, study)
    save(drawn if isinstance(drawn, list) else [drawn], out / name)
    write_json(out / f"{name}.json", provenance(figure=name, numbers=numbers))
