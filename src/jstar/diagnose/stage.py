"""What `jstar diagnose` writes of one denoiser: diagnosis.csv, .json, .md."""

from pathlib import Path

import pandas as pd

from jstar.data.card import require_same
from jstar.diagnose.adapters import Adapter
from jstar.diagnose.measure import Diagnosis, diagnose
from jstar.diagnose.misreadings import check_adapter
from jstar.diagnose.oracle_draws import Truth
from jstar.diagnose.words import in_words
from jstar.noise import Process
from jstar.records import provenance, write_table, write_text
from jstar.typeset import Rows, markdown

SHOWN = ("sigma", "loss", "optimal", "gap", "gap_share", "mean_image", "slope")  # in the .md


def write_diagnosis(
    adapter: Adapter, truth: Truth, process: Process, out: Path, *, batch: int, device: str
) -> str:
    """Measure `adapter`, write the three files to `out`, return the paragraph in words.

    Nothing is written if the denoiser cannot be used. Raises JstarError.
    """
    if adapter.card_id is not None:
        require_same(truth.card.id, adapter.card_id, truth.card.name, adapter.name)
    problems = check_adapter(adapter, truth, device)
    found = diagnose(adapter, truth, process, batch=batch, device=device)
    text = in_words(found, problems)
    facts = provenance(
        denoiser=found.name,
        dataset=found.dataset,
        card_id=truth.card.id,
        images=found.images,
        draws=found.draws,
        seed=truth.oracle.seed,
        process=process.name,
        floor_share=found.floor_share,
        total_gap=found.total("gap"),
        problems=problems,
        words=text,
    )
    write_text(out / "diagnosis.md", _page(found, text))
    write_table(out / "diagnosis.csv", found.frame, facts, [out / "diagnosis.md"])
    return text


def _page(found: Diagnosis, text: str) -> str:
    units = "Losses: squared error per dimension, in the data scale; gap_share = gap / loss."
    table = markdown(as_rows(found.frame[list(SHOWN)]), units)
    return f"# Diagnosis of {found.name}\n\n{text}\n\n{table}"


def as_rows(frame: pd.DataFrame) -> Rows:
    """Head and rows of a table as text, numbers to three digits."""
    body = [
        [v if isinstance(v, str) else f"{v:.3g}" for v in values]
        for values in frame.itertuples(index=False)
    ]
    return [[str(name) for name in frame.columns], *body]
