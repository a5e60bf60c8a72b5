"""Where every stage keeps its files: one place, used by the commands and the workflow alike."""

from dataclasses import dataclass
from pathlib import Path

from jstar.config import Study

# What the stage fit writes into a study's folder, and what figures and notebooks read.
FIT_TABLES = (
    "losses", "fits", "verdicts", "frontier", "predictions", "residuals", "residual_tests",
    "profile", "sensitivity", "isoflop", "isoflop_minima", "parametric", "approaches",
)  # fmt: skip
PAPER_TABLES = ("laws", "sensitivity", "checklist")  # in tables/, as .md and .tex


@dataclass(frozen=True)
class Layout:
    """Paths of one study below the results folder."""

    study: Study
    root: Path = Path("results")

    @property
    def data(self) -> Path:
        """Folder of the prepared dataset (stage prepare)."""
        return self.root / "data" / self.study.dataset.name

    @property
    def curve(self) -> Path:
        """Table of J*(sigma) (stage optimal)."""
        return self.root / "optimal" / self.study.dataset.name / "curve.csv"

    def shard(self, number: int, shards: int) -> Path:
        """Sums of one shard of the points (stage optimal, if it is shared)."""
        return self.curve.parent / "shards" / f"{number}-of-{shards}.npz"

    @property
    def comparison(self) -> Path:
        """Folder of the comparison of all estimators (jstar optimal-compare)."""
        return self.curve.parent / "comparison"

    @property
    def oracle(self) -> Path:
        """Folder of the oracle set (stage optimal)."""
        return self.root / "optimal" / self.study.dataset.name / "oracle"

    def run(self, model: str, seed: int) -> Path:
        """Folder of a finished training run (stages train and evaluate)."""
        return self.root / "runs" / self.study.study / f"{model}-s{seed}"

    def state(self, model: str, seed: int) -> Path:
        """Folder of a run's resumable state. Snakemake never knows of it: it deletes outputs."""
        return self.root / "state" / self.study.study / f"{model}-s{seed}"

    def losses(self, model: str, seed: int) -> Path:
        """Table of the measured losses of a run (stage evaluate)."""
        return self.run(model, seed) / "losses.csv"

    def quality(self, model: str, seed: int) -> Path:
        """Table of a run's sample quality (stage sample)."""
        return self.run(model, seed) / "quality.csv"

    @property
    def reference(self) -> Path:
        """Folder of the feature networks and the data's own features (stage sample)."""
        return self.root / "quality" / self.study.dataset.name

    @property
    def sampling(self) -> Path:
        """Folder of the study's sample quality and sampling theory."""
        return self.fits / "sampling"

    @property
    def noise(self) -> Path:
        """Folder of the comparison of noise laws, of a study that trains with several."""
        return self.fits / "noise"

    @property
    def fits(self) -> Path:
        """Folder of the study's fits, figures, tables and report."""
        return self.root / "studies" / self.study.study

    @property
    def figures(self) -> Path:
        """Folder of the study's figures."""
        return self.fits / "figures"
