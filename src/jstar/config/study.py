"""A whole study: consistent, loaded in one way, and what each stage may depend on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from jstar.averages import Stored, power_exponent
from jstar.config.base import Name, Part, one_of
from jstar.config.choices import KINDS
from jstar.config.evaluate import EvaluateConfig
from jstar.config.figures import FiguresConfig
from jstar.config.fit import FitConfig
from jstar.config.ladder import LadderEntry, ModelConfig
from jstar.config.optimal import OptimalConfig, SigmaConfig
from jstar.config.prepare import DECLARATIONS, DatasetConfig
from jstar.config.reading import read_yaml
from jstar.config.refusal import refuse
from jstar.config.resources import ResourcesConfig
from jstar.config.sampling import SamplingConfig
from jstar.config.train import TrainConfig
from jstar.config.tune import TuneConfig
from jstar.constants import COOLDOWN
from jstar.errors import JstarError, nearest
from jstar.noise import Process

# How often a run is saved, and how its memory is split, changes no number.
UNCHANGING = (
    "checkpoint_seconds", "checkpoint_images", "time_budget_minutes", "microbatch",
    "activation_checkpointing", "parallel", "resident", "rank_timeout_minutes",
    "deterministic",
    "peak_flops", "writer",
)  # fmt: skip


class Study(Part):
    """A whole study: one file in config/."""

    study: Name = Field(description="name of the study's folder under results")
    kind: Annotated[str, one_of(*KINDS)] = Field(
        "scaling",
        description="scaling: sizes, their laws; variants: training variants of one size, "
        "their loss at each noise scale",
    )
    dataset: DatasetConfig
    sigmas: SigmaConfig = SigmaConfig()
    optimal: OptimalConfig = OptimalConfig()
    model: ModelConfig = ModelConfig()
    ladder: Annotated[list[LadderEntry], Field(min_length=1)]
    tune: TuneConfig = TuneConfig()
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    fit: FitConfig = FitConfig()
    sampling: SamplingConfig = SamplingConfig()
    figures: FiguresConfig = FiguresConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        faults = list(self._misfits())
        refuse(faults or self._misfits_of_averages())
        return self

    def _misfits(self) -> Iterator[str]:
        """Parts, each right by itself, that do not go together."""
        by_class = self.optimal.estimator == "exact_by_class"
        if by_class != self.conditional:
            yield (
                f"optimal.estimator = '{self.optimal.estimator}' does not fit model.class_drop = "
                f"{self.model.class_drop:g}: a model that sees labels (class_drop below 1) has the "
                "optimal loss 'exact_by_class', one that does not (class_drop 1) any other"
            )
        names = [entry.name for entry in self.ladder]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                yield f"ladder: the name '{name}' is used twice, names must differ"
            seeds = self.entry(name).seeds
            for seed in dict.fromkeys(seeds):
                if seeds.count(seed) > 1:
                    yield f"ladder.{name}.seeds: {seed} is given twice, one run would stand for two"
            entry, head = self.entry(name), self.model.head_width
            width = entry.width or self.model.width_per_depth * entry.depth
            if width % head:
                yield f"model.head_width = {head} does not divide the width {width} of '{name}'"
            if width % 4:
                yield f"the width {width} of '{name}' is not allowed, a multiple of 4 is needed"
            try:
                self.train_of(name)
            except JstarError as error:
                yield str(error)
        if self.tune.enabled and not self.tuned_models:
            yield (
                "tune.enabled = true: every entry of the ladder gives its own learning_rate, none "
                "is left to tune"
            )

    def _misfits_of_averages(self) -> Iterator[str]:
        """EMA lengths that are not stored and cannot be made, or are not measured where used.

        Of a run whose length is given in FLOPs only the stage evaluate knows.
        """
        try:
            for length in self.train.ema:
                power_exponent(length)
            for run in [self.train_of(entry.name) for entry in self.ladder]:
                if run.images is not None:
                    spaced = np.geomspace(run.first_snapshot, run.images, run.snapshots)
                    times = np.unique([*spaced, run.images])
                    for length in self.lengths:
                        Stored(tuple(run.ema), tuple(times.tolist())).require(length)
        except JstarError as error:
            yield f"train.ema, evaluate.ema: {error}"
        if self.train.cooldown is None and self.fit.ema == COOLDOWN:
            yield "fit.ema: 'cooldown' needs train.cooldown, which is not given"
        if self.train.cooldown is not None and self.kind != "scaling":
            yield (
                f"train.cooldown is not allowed in a study of kind '{self.kind}', only in 'scaling'"
            )
        for key, chosen in (("fit", self.fit.ema), ("sampling", self.sampling.ema)):
            if chosen and chosen not in self.lengths:
                yield (
                    f"{key}.ema: {chosen:g} is not evaluated (evaluate.ema), allowed are "
                    + ", ".join(f"{length:g}" for length in self.lengths)
                )

    # -- loading ---------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Read and check a study file. Raises JstarError: one sentence naming file and key."""
        return cls.parse(read_yaml(Path(path)), str(path))

    @classmethod
    def parse(cls, raw: Any, origin: str = "study") -> "Study":
        """Check an already loaded study. `origin` is named in the error."""
        if not isinstance(raw, dict):
            raise JstarError(f"{origin}: holds {type(raw).__name__}, a study is a set of keys")
        return cls.checked(raw, origin)

    # -- what the stages ask ----------------------------------------------------------------

    @property
    def conditional(self) -> bool:
        """Whether the models see class labels; their optimal loss is then class by class."""
        return self.model.class_drop < 1

    @property
    def process(self) -> Process:
        """The study's training process: noise law, weight and preconditioning."""
        return self.train.make_process()

    @property
    def lengths(self) -> list[float]:
        """Lengths of the EMAs whose losses are measured."""
        return self.evaluate.ema or self.train.ema

    @property
    def ema(self) -> float:
        """Length of the EMA that is fitted; COOLDOWN where the ends of cooldowns are."""
        return self.average if self.fit.ema is None else self.fit.ema

    @property
    def average(self) -> float:
        """Length of the EMA that is fitted, or would be without cooldowns."""
        return self.fit.ema or self.lengths[0]

    def train_of(self, model: str) -> TrainConfig:
        """How the ladder entry `model` is trained: `train`, with what the entry says otherwise."""
        own = self.entry(model).training(self.width(model))
        return (
            TrainConfig.checked({**dict(self.train), **own}, f"ladder.{model}")
            if own
            else self.train
        )

    def width(self, model: str) -> int:
        """Width of the ladder entry `model`."""
        entry = self.entry(model)
        return entry.width or self.model.width_per_depth * entry.depth

    @property
    def tuned_models(self) -> list[str]:
        """The ladder entries whose rate the stage tune chooses: those that do not give it."""
        return [e.name for e in self.ladder if self.tune.enabled and e.learning_rate is None]

    def entry(self, name: str) -> LadderEntry:
        """The ladder entry called `name`."""
        for entry in self.ladder:
            if entry.name == name:
                return entry
        names = [e.name for e in self.ladder]
        raise JstarError(
            f"model: '{name}' is not in the ladder of study '{self.study}', allowed are "
            + ", ".join(names)
            + nearest(name, names)
        )

    def require_run(self, model: str, seed: int) -> None:
        """Raise JstarError unless the study trains `model` with `seed`."""
        seeds = self.entry(model).seeds
        if seed not in seeds:
            raise JstarError(
                f"seed: {seed} is not among those of '{model}' in study '{self.study}', allowed "
                f"are {', '.join(map(str, seeds))} (ladder.{model}.seeds)"
            )

    def noise_pairs(self) -> list[tuple[LadderEntry, LadderEntry]]:
        """(entry with the own noise law, its like with train.noise), where nothing else differs."""
        return [
            (own, new)
            for new in self.ladder
            for own in self.ladder
            if self.train_of(new.name).noise is not None
            and self.train_of(new.name).model_copy(update={"noise": None})
            == self.train_of(own.name)
            and (own.depth, own.width) == (new.depth, new.width)
            and set(own.seeds) & set(new.seeds)
        ]

    def runs(self) -> list[tuple[str, int]]:
        """(model, seed) of every training run, in the ladder's order."""
        return [(entry.name, seed) for entry in self.ladder for seed in entry.seeds]

    def content(self, stage: str, model: str | None = None) -> str:
        """Canonical JSON of what changes the numbers of `stage` (rules use it as a param)."""
        tree = self.model_dump(mode="json")
        keys = {
            "prepare": ["dataset"],
            "optimal": ["sigmas", "optimal"],
            "oracle": ["sigmas", "evaluate.queries", "evaluate.seed", "optimal.estimator"],
            "tune": ["model", "train", "tune", "fit.ema"],
            "train": ["model", "train"],
            "evaluate": ["evaluate.ema", "train.process"],  # the process weights the total
            "fit": ["study", "fit", "train.process"],
            "variants": ["study", "fit.ema"],
            "figures": ["study", "figures"],
            "sampling": ["sampling", "fit.ema"],
        }[stage]
        picked: dict[str, Any] = {}
        for key in keys:
            value: Any = tree
            for word in key.split("."):
                value = value[word]
            picked[key] = value
        if stage == "prepare":  # a dataset without these keys is what it was before them
            fields = DatasetConfig.model_fields
            for key in DECLARATIONS:
                if picked["dataset"][key] == fields[key].default:
                    picked["dataset"].pop(key)
        if stage == "optimal":
            picked["optimal"].pop("shards")
        if stage == "evaluate" and self.evaluate.precision != "fp32":
            picked["evaluate.precision"] = self.evaluate.precision
        if stage == "sampling":
            for key in ("enabled", "batch"):
                picked["sampling"].pop(key)
        if stage in ("tune", "train"):
            left_out = list(UNCHANGING)
            if model is not None:
                picked["train"] = self.train_of(model).model_dump(mode="json")
                entry = self.entry(model)
                picked["entry"] = {key: getattr(entry, key) for key in ("name", "depth", "width")}
            # A run without these keys is what it was before them.
            given = ("noise", "flops", *(["cooldown"] if stage == "train" else []))
            left_out += [key for key in given if picked["train"][key] is None]
            if stage == "tune":
                left_out += ["snapshots", "first_snapshot", "cooldown"]
                picked["tune"].pop("enabled")
            elif model in self.tuned_models:  # not chosen yet: `Layout.tuned` fills it in
                left_out += ["learning_rate", "learning_rate_width"]
                left_out += ["batch"] if self.tune.batches else []
            for key in left_out:
                picked["train"].pop(key)
        return json.dumps(picked, sort_keys=True)
