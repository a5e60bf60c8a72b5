"""The study file: typed, frozen, checked. Unknown keys and bad values end in one sentence.

`Study.load(path)` is the only way in. `Study.content(stage)` is what a rule may depend on:
the part of the study that changes the numbers of that stage, and nothing else.
"""

from jstar.config.base import Part
from jstar.config.dataset import (
    ESTIMATORS,
    EXACT_ESTIMATORS,
    FORMS,
    SOURCES,
    DatasetConfig,
    OptimalConfig,
    SigmaConfig,
    estimator_conflict,
)
from jstar.config.results import FiguresConfig, FitConfig, ResourcesConfig
from jstar.config.sampling import SampleConfig, SamplerConfig
from jstar.config.study import Study
from jstar.config.training import (
    SIZES,
    EvaluateConfig,
    LadderEntry,
    ModelConfig,
    OptimalLossNoise,
    TrainConfig,
    Variant,
)

__all__ = [
    "ESTIMATORS",
    "EXACT_ESTIMATORS",
    "FORMS",
    "SIZES",
    "SOURCES",
    "DatasetConfig",
    "EvaluateConfig",
    "FiguresConfig",
    "FitConfig",
    "LadderEntry",
    "ModelConfig",
    "OptimalConfig",
    "OptimalLossNoise",
    "Part",
    "ResourcesConfig",
    "SampleConfig",
    "SamplerConfig",
    "SigmaConfig",
    "Study",
    "TrainConfig",
    "Variant",
    "estimator_conflict",
]
