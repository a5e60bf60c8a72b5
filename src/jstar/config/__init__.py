"""The study file: typed, frozen, checked. Unknown keys and bad values end in one sentence.

`Study.load(path)` is the only way in. `Study.content(stage)` is what a rule may depend on:
the part of the study that changes the numbers of that stage, and nothing else.
"""

from jstar.config.base import Part
from jstar.config.choices import ESTIMATORS, EXACT_ESTIMATORS, FORMS, SIZES, SOURCES
from jstar.config.evaluate import EvaluateConfig
from jstar.config.figures import FiguresConfig
from jstar.config.fit import FitConfig
from jstar.config.ladder import LadderEntry, ModelConfig
from jstar.config.optimal import OptimalConfig, SigmaConfig, estimator_conflict
from jstar.config.prepare import DatasetConfig
from jstar.config.resources import ResourcesConfig
from jstar.config.sampling import SamplerConfig, SamplingConfig
from jstar.config.study import Study
from jstar.config.train import CooldownConfig, OptimalLossNoise, TrainConfig, Variant
from jstar.config.tune import TuneConfig

__all__ = [
    "ESTIMATORS", "EXACT_ESTIMATORS", "FORMS", "SIZES", "SOURCES", "CooldownConfig",
    "DatasetConfig", "EvaluateConfig", "FiguresConfig", "FitConfig", "LadderEntry", "ModelConfig",
    "OptimalConfig", "OptimalLossNoise", "Part", "ResourcesConfig", "SamplerConfig",
    "SamplingConfig", "SigmaConfig", "Study", "TrainConfig", "TuneConfig", "Variant",
    "estimator_conflict",
]  # fmt: skip
