"""Where every stage keeps its files: one place, asked by the commands and by every rule."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from jstar.config import Study
from jstar.constants import RESULTS
from jstar.errors import JstarError
from jstar.records import read_json, require_intact

# What the stage fit writes into a study's folder, and what figures and notebooks read.
FIT_TABLES = (
    "losses", "fits", "verdicts", "expected", "frontier", "onsets", "predictions",
    "residuals", "residual_tests", "profile", "sensitivity", "isoflop", "isoflop_minima",
    "parametric", "approaches", "held_out", "averages", "cooldown", "cooldown_laws",
)  # fmt: skip
PAPER_TABLES = ("laws", "sensitivity", "checklist")  # in tables/, as .md and .tex


@dataclass(frozen=True)
class Layout:
    """Paths of one study below the results folder.

    Rules ask for the paths of a run with the wildcards "{model}" and "{seed}" instead of one.
    """

    study: Study
    root: Path = RESULTS

    @property
    def data(self) -> Path:
        """Folder of the prepared dataset (stage prepare)."""
        return self.root / "data" / self.study.dataset.name

    @property
    def curve(self) -> Path:
        """Table of J*(sigma) (stage optimal)."""
        return self.root / "optimal" / self.study.dataset.name / "curve.csv"

    def shard(self, number: int | str, shards: int | str) -> Path:
        """Sums of one shard of the points (stage optimal, if it is shared)."""
        return self.curve.parent / "shards" / f"{number}-of-{shards}.npz"

    @property
    def comparison(self) -> Path:
        """Folder of the comparison of all estimators (jstar optimal-compare)."""
        return self.curve.parent / "comparison"

    @property
    def oracle(self) -> Path:
        """Folder of the oracle set (stage optimal)."""
        return self.curve.parent / "oracle"

    def run(self, model: str, seed: int | str) -> Path:
        """Folder of a finished training run (stages train and evaluate)."""
        return self.root / "runs" / self.study.study / f"{model}-s{seed}"

    def state(self, model: str, seed: int) -> Path:
        """Folder of a run's resumable state. Snakemake never knows of it: it deletes outputs."""
        return self.root / "state" / self.study.study / f"{model}-s{seed}"

    @property
    def rehearsals(self) -> Path:
        """Folder of what 'jstar rehearse' measured: like `state`, no rule knows of it."""
        return self.root / "rehearse" / self.study.study

    @property
    def tune(self) -> Path:
        """Folder of the study's tuning: tune.csv, trials.csv and their figure (stage tune)."""
        return self.root / "tune" / self.study.study

    def rate(self, model: str) -> Path:
        """The learning rate that was chosen for a size, and nothing else (stage tune)."""
        return self.tune / model / "rate.json"

    def trials(self, model: str) -> Path:
        """Table of the trials of a size (stage tune)."""
        return self.tune / model / "trials.csv"

    def tune_state(self, model: str) -> Path:
        """Folder of the trials themselves: like `state`, no rule knows of it."""
        return self.root / "state" / self.study.study / "tune" / model

    def tuned(self, model: str | None = None) -> "Layout":
        """The same study with every rate that is chosen so far filled in, as its runs use it.

        Raises JstarError where that of `model` is still to be chosen.
        """
        ladder = []
        for entry in self.study.ladder:
            if entry.name in self.study.tuned_models:
                if self._is_tuned(entry.name):
                    entry = entry.model_copy(update=read_json(self.rate(entry.name)))
                elif entry.name == model:
                    raise JstarError(
                        f"{self.rate(model)}: is not there or of another study, but tune.enabled = "
                        f"true; run 'jstar tune --model {model}', or give ladder.{model}."
                        "learning_rate"
                    )
            ladder.append(entry)
        return replace(self, study=self.study.model_copy(update={"ladder": ladder}))

    def _is_tuned(self, model: str) -> bool:
        """Whether a rate lies there that this very study's trials chose."""
        facts = self.trials(model).with_suffix(".json")
        if not (facts.is_file() and self.rate(model).is_file()):
            return False
        if read_json(facts)["content"] != json.loads(self.study.content("tune", model)):
            return False
        require_intact(self.rate(model), facts, f"run 'jstar tune --model {model}' again")
        return True

    def noise_law(self, model: str, seed: int | str) -> Path:
        """Table of the noise law that a run with train.noise followed (stage train)."""
        return self.run(model, seed) / "noise_law.csv"

    def losses(self, model: str, seed: int | str) -> Path:
        """Table of the measured losses of a run (stage evaluate)."""
        return self.run(model, seed) / "losses.csv"

    def losses_share(
        self, model: str, seed: int | str, number: int | str, shards: int | str
    ) -> Path:
        """Says that a share of a run's losses is measured (stage evaluate, if it is shared)."""
        return self.run(model, seed) / "evaluate" / f"{number}-of-{shards}.json"

    def quality(self, model: str, seed: int | str) -> Path:
        """Table of a run's sample quality (stage sampling), beside its samples.npz."""
        return self.run(model, seed) / "quality.csv"

    @property
    def features(self) -> Path:
        """Folder of the feature networks and the data's own features (stage sampling)."""
        return self.root / "sampling" / self.study.dataset.name

    @property
    def fits(self) -> Path:
        """Folder of the study: its fits, and the folders of the stages after them."""
        return self.root / "studies" / self.study.study

    @property
    def tables(self) -> Path:
        """Folder of what the figures of this kind of study are drawn from."""
        return self.variants if self.study.kind == "variants" else self.fits

    @property
    def figures(self) -> Path:
        """Folder of the study's figures."""
        return self.fits / "figures"

    @property
    def notebooks(self) -> Path:
        """Folder of the study's notebooks, executed."""
        return self.fits / "notebooks"

    @property
    def logs(self) -> Path:
        """Folder of what the study's last stages print."""
        return self.fits / "logs"

    @property
    def verified(self) -> Path:
        """What `jstar verify` found of the study (stage report)."""
        return self.fits / "verify.json"

    @property
    def report(self) -> Path:
        """The study on one page (stage report)."""
        return self.fits / "report.html"

    @property
    def snakemake_report(self) -> Path:
        """Snakemake's own report: figures with their captions, the rules and their times."""
        return self.fits / "snakemake-report.html"

    @property
    def sampling(self) -> Path:
        """Folder of the study's sample quality and sampling theory."""
        return self.fits / "sampling"

    @property
    def variants(self) -> Path:
        """Folder of the comparison of variants, of a study of that kind."""
        return self.fits / "variants"

    @property
    def noise_laws(self) -> Path:
        """Folder of the comparison of noise laws, of a study that trains with several."""
        return self.variants / "noise-laws"
