"""The page: everything a study has to say in one file that needs no network."""

import base64
import json
import math
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from jstar.constants import TOTAL
from jstar.errors import JstarError
from jstar.figures import figures_of
from jstar.figures.joint import joint_approach
from jstar.figures.scaling import chosen_scales
from jstar.figures.style import VERDICT_STYLE
from jstar.figures.tables import StudyTables, VariantTables, load_tables, load_variants
from jstar.layout import Layout
from jstar.manifest import parents
from jstar.records import provenance, read_json, write_record, write_text
from jstar.report import charts
from jstar.report.finding import WRONG_RATES, checks, finding, share_text, total
from jstar.scaling.paper_tables import exponent_text, number

WIDTH = 1400  # pixels of a picture, at most
CARD = ("name", "source", "count", "shape", "classes", "holdout", "duplicates", "mirror", "std",
        "license", "citation", "origin", "images_sha256")  # fmt: skip
RUN = ("model", "seed", "params", "images", "flops", "seconds", "images_per_second", "mfu",
       "device", "threads")  # fmt: skip
ORIGIN = ("jstar", "commit", "losses", "optimal", "card_id", "optimal_fingerprint", "process",
          "ema", "confidence", "bootstrap", "seed", "loss_unit", "flop_convention")  # fmt: skip


@dataclass(frozen=True)
class Sources:
    """What a page is made of. main: the picture at the top; runs: their run.json.

    verified: the table of `jstar verify`, every file of the study against its record.
    """

    title: str
    finding: str
    tables: StudyTables | None = None
    main: Path | None = None
    pictures: list[Path] = field(default_factory=list)
    card: Path | None = None
    sheet: Path | None = None
    runs: list[Path] = field(default_factory=list)
    verified: Path | None = None


def write_study_report(layout: Layout) -> None:
    """Write the page of a study. Raises JstarError for a table that is missing or broken."""
    study = layout.study
    names = figures_of(study.kind, len(study.lengths), study.train.cooldown is not None)
    pictures = [layout.figures / f"{name}.png" for name in names]
    for folder in (layout.tune, layout.sampling, layout.noise_laws):
        pictures += sorted(folder.glob("*.png"))
    tables: StudyTables | None = None
    read: StudyTables | VariantTables
    if study.kind == "variants":
        read = load_variants(layout.tables, layout.curve)
        said = str(read.facts["words"])
    else:
        read = tables = load_tables(layout.fits, layout.curve, study.ema)
        said = finding(tables)
    sources = Sources(
        title=f"{study.study}: {study.dataset.name}, {len(study.ladder)} "
              f"{'variants' if study.kind == 'variants' else 'sizes'}",
        finding=said, tables=tables,
        main=layout.figures / ("variants.png" if study.kind == "variants" else "scaling.png"),
        pictures=pictures, card=layout.data / "card.json", sheet=layout.data / "samples.png",
        runs=[layout.run(*run) / "run.json" for run in study.runs()], verified=layout.verified,
    )  # fmt: skip
    write_page(layout.report, sources)
    _record(layout.report, layout.tables / read.record, layout.curve)


def write_tables_report(fits: Path, curve: Path | None, figures: Path | None, out: Path) -> None:
    """Write the page of tables that `jstar fit --out` wrote, with the pictures of a folder."""
    tables = load_tables(fits, curve, None)
    drawn = sorted(figures.glob("*.png")) if figures else []
    main = [path for path in drawn if path.stem == "scaling"]
    source = ", ".join(str(path) for path in tables.origin["losses"])
    write_page(out, Sources(f"Scaling laws of {source}", finding(tables), tables,
                            main[0] if main else None, drawn))  # fmt: skip
    _record(out, fits / tables.record, curve)


def write_page(out: Path, sources: Sources) -> None:
    """Fill the template and write it, whole or not."""
    environment = Environment(loader=PackageLoader("jstar.report"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    environment.filters |= {"number": number, "share_text": share_text}
    tables = sources.tables
    others = [_picture(path) for path in sources.pictures if path != sources.main]
    page = environment.get_template("page.html").render(
        sources=sources,
        main=_picture(sources.main),
        pictures=[picture for picture in others if picture],
        sheet=_picture(sources.sheet),
        card=_card(sources.card),
        runs=_runs(sources.runs),
        rows=_rows(tables) if tables else [],
        said_of_total=total(tables) if tables else "",
        laws=charts.LAWS,
        colors=charts.COLOR,
        chips=charts.size_chips(tables) if tables else [],
        checks=checks(tables) if tables else [],
        origin=[*(_origin(tables.origin) if tables else []), *_verified(sources.verified)],
        data=_data(tables) if tables else None,
        plotly=Markup(get_plotlyjs()) if tables else "",
        script=Markup((Path(__file__).parent / "templates" / "page.js").read_text("utf-8")),
    )
    write_text(out, page)


def _record(out: Path, tables: Path, curve: Path | None) -> None:
    """What stands for a page, and of which tables it tells."""
    record = out.with_suffix(".json")
    write_record(record, provenance(**parents(record, [tables, curve])), [out])


def _data(tables: StudyTables) -> Markup:
    """All plots as JSON that may stand in a script element."""
    scales = tables.scales
    first = chosen_scales(tables, 1)[0]
    tree = {
        "charts": {
            "exponents": charts.exponents_chart(tables),
            "floors": charts.floors_chart(tables),
        },
        "scales": [{"charts": charts.scale_charts(tables, sigma)} for sigma in scales],
        "first": scales.index(first),
    }
    return Markup(json.dumps(tree, separators=(",", ":")).replace("<", "\\u003c"))


def _rows(tables: StudyTables) -> list[dict[str, Any]]:
    """The table sigma x law, one row a noise scale; `sort` holds what a column is sorted by."""
    rows = []
    for sigma in tables.scales:
        verdict = tables.at("verdicts", sigma).iloc[0]
        laws = {law: tables.fit(sigma, law) for law in charts.LAWS if law != "joint"}
        laws["joint"] = joint_approach(tables, sigma)
        word = str(verdict["verdict"])
        wrong = [float(verdict[rate]) for rate in WRONG_RATES.get(word, ())]
        rows.append(
            {
                "sigma": TOTAL if sigma == TOTAL else f"{sigma:.4g}",
                "sort": math.inf if sigma == TOTAL else sigma,
                "verdict": word,
                "color": VERDICT_STYLE[word]["color"],
                "reason": str(verdict["reason"]),
                "optimal": float(verdict["optimal"]),
                "wrong": max(wrong) if wrong else None,
                "laws": {law: exponent_text(row) for law, row in laws.items()},
                "alphas": {law: _finite(row["alpha"]) for law, row in laws.items()},
            }
        )
    return rows


def _finite(value: Any) -> float | None:
    return float(value) if pd.notna(value) else None


def _card(path: Path | None) -> list[tuple[str, str]]:
    """What the dataset's card says, without what is empty."""
    if path is None or not path.is_file():
        return []
    card = read_json(path)
    shown = {key: card[key] for key in CARD if card.get(key) not in (None, "", [])}
    return [(key.replace("_", " "), f"{value:.5g}" if isinstance(value, float) else str(value))
            for key, value in shown.items()]  # fmt: skip


def _runs(paths: list[Path]) -> pd.DataFrame | None:
    """Cost of every run; None where runs are not at hand."""
    found = [read_json(path) for path in paths if path.is_file()]
    if not found:
        return None
    missing = [key for key in RUN if key not in found[0]]
    if missing:
        raise JstarError(f"{paths[0]}: the key '{missing[0]}' is missing, train the run again")
    return pd.DataFrame([{key: run[key] for key in RUN} for run in found])


def _origin(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Where the numbers come from."""
    shown = [(key.replace("_", " "), facts.get(key)) for key in ORIGIN]
    return [(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for key, value in shown if value is not None]  # fmt: skip


def _verified(path: Path | None) -> list[tuple[str, str]]:
    """What `jstar verify` said when the page was made."""
    return [("verified", str(read_json(path)["summary"]))] if path and path.is_file() else []


@dataclass(frozen=True)
class Picture:
    """A picture as a data address; a narrow one is of one column."""

    name: str
    address: Markup
    narrow: bool


def _picture(path: Path | None) -> Picture | None:
    """A picture no wider than the page needs; None where there is none."""
    if path is None or not path.is_file():
        return None
    with Image.open(path) as image:
        shown = image.convert("RGB")
    narrow = shown.width < WIDTH
    if not narrow:
        shown = shown.resize(
            (WIDTH, round(shown.height * WIDTH / shown.width)), Image.Resampling.LANCZOS
        )
    memory = BytesIO()
    shown.save(memory, format="WEBP", quality=82)
    code = base64.b64encode(memory.getvalue()).decode()
    return Picture(path.stem.replace("_", " "), Markup(f"data:image/webp;base64,{code}"), narrow)
