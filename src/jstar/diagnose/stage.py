"""What `jstar diagnose` writes of one denoiser: diagnosis.csv, .json, .md."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from jstar.data.card import require_same
from jstar.diagnose.adapters import Adapter
from jstar.diagnose.first_call import first_call
from jstar.diagnose.generated import SHEET, Generated, Target, draw_and_score
from jstar.diagnose.images import peek
from jstar.diagnose.measure import Diagnosis, diagnose
from jstar.diagnose.oracle_draws import Truth, UnseenDraws
from jstar.diagnose.solver import Identification
from jstar.diagnose.words import beaten, denoiser_verdict, in_words
from jstar.figures.denoiser import draw_frame
from jstar.noise import Process
from jstar.records import provenance, write_atomically, write_table, write_text
from jstar.typeset import Rows, markdown

SHOWN = (
    "sigma", "time", "loss", "loss_epsilon", "optimal", "gap", "gap_share", "harm", "upper",
    "floor_generalising", "held_out", "mean_image", "slope",
)  # in the .md  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """All that was found of one denoiser: its adapter's verdict, its losses, and the words.

    generated: the images drawn with it, if it was asked for.
    """

    adapter: Identification
    diagnosis: Diagnosis
    words: str
    generated: Generated | None = None

    def summary(self) -> str:
        """The paragraph in words."""
        return self.words

    def to_frame(self) -> pd.DataFrame:
        """One row a noise scale, the columns of diagnosis.csv."""
        return self.diagnosis.frame.copy()

    def plot(self, stem: str | Path = "diagnosis") -> None:
        """Draw it to `stem`.png and .pdf."""
        draw_frame(self.diagnosis.frame, beaten(self.diagnosis.frame), Path(stem))


@dataclass(frozen=True)
class Yardstick:
    """What denoisers of one dataset are held against."""

    truth: Truth
    floors: pd.DataFrame
    held_out: UnseenDraws | None
    target: Target | None = None  # what drawn images are scored against, if any are drawn


def check_first(adapter: Adapter, dataset: Path, work: Path, labels: bool, device: str) -> None:
    """Call the denoiser with two images of `dataset` before any work. Raises JstarError."""
    images_BCHW, labels_B = peek(dataset, work)
    first_call(adapter, images_BCHW, labels_B if labels else None, device)


def find(
    adapter: Adapter,
    identified: Identification,
    yardstick: Yardstick,
    process: Process,
    *,
    batch: int = 256,
    device: str = "cpu",
) -> Finding:
    """Measure `adapter` and say what was found. Raises JstarError where it cannot be used."""
    truth = yardstick.truth
    if adapter.card_id is not None:
        require_same(truth.card.id, adapter.card_id, truth.card.name, adapter.name)
    found = diagnose(adapter, truth, process, held_out=yardstick.held_out,
                     floors=yardstick.floors, batch=batch, device=device)  # fmt: skip
    told = replace(identified, problems=(*identified.problems, *adapter.notes))
    words, drawn = in_words(found, told), None
    if yardstick.target is not None:
        drawn = draw_and_score(adapter, yardstick.target, truth.oracle.seed,
                               truth.labels_M is not None, batch, device)  # fmt: skip
        words = f"{words} {drawn.summary()}"
    return Finding(told, found, words, drawn)


def write_finding(finding: Finding, truth: Truth, out: Path) -> None:
    """Write diagnosis.csv, .json and .md to `out`, and a page of the images drawn, if any were."""
    found = finding.diagnosis
    wrong = finding.adapter.verdict == "wrong"
    facts = provenance(
        denoiser=found.name,
        dataset=found.dataset,
        card_id=truth.card.id,
        images=found.images,
        draws=found.draws,
        seed=truth.oracle.seed,
        process=found.process.name,
        floor_share=found.floor_share,
        total_gap=found.total("gap"),
        verdict="wrong adapter" if wrong else denoiser_verdict(found.frame),
        adapter={"verdict": finding.adapter.verdict, "reading": finding.adapter.reading},
        total=found.totals,
        total_optimal=found.totals_optimal,
        floor_generalising=[
            {"sigma": row.sigma, "floor_generalising": row.floor_generalising,
             "low": row.floor_low, "high": row.floor_high}
            for row in found.frame.itertuples()
        ],
        problems=list(finding.adapter.problems),
        sample=None if finding.generated is None else finding.generated.facts(),
        words=finding.words,
    )  # fmt: skip
    write_text(out / "diagnosis.md", _page(finding))
    files = [out / "diagnosis.md"]
    sheet = finding.generated.sheet() if finding.generated else None
    if sheet is not None:
        files.append(out / SHEET)
        write_atomically(out / SHEET, lambda path: sheet.save(path, "PNG"))
    write_table(out / "diagnosis.csv", found.frame, facts, files)


def _page(finding: Finding) -> str:
    found, drawn = finding.diagnosis, finding.generated
    units = (
        "Losses: squared error per dimension, in the data scale; gap_share = gap / loss; upper: "
        "the best denoiser tried that cannot memorise; floor_generalising: nan where it cannot be "
        "told."
    )
    table = markdown(as_rows(found.frame[list(SHOWN)]), units)
    logged = [["as logged", "loss", "of it J*"]]
    logged += [
        [name, f"{value:.4g}", f"{found.totals_optimal[name]:.3g}"]
        for name, value in found.totals.items()
    ]
    totals = markdown(logged, "Totals as trainers log them.")
    scores = "" if drawn is None else f"\n{markdown(drawn.as_rows(), drawn.caption())}"
    return f"# Diagnosis of {found.name}\n\n{finding.words}\n\n{table}\n{totals}{scores}"


def as_rows(frame: pd.DataFrame) -> Rows:
    """Head and rows of a table as text, numbers to three digits."""
    body = [
        [v if isinstance(v, str) else f"{v:.3g}" for v in values]
        for values in frame.itertuples(index=False)
    ]
    return [[str(name) for name in frame.columns], *body]
