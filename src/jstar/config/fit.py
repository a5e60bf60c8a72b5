"""Keys of the stage fit."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from jstar.config.base import Part, Seed, one_of
from jstar.constants import COOLDOWN

COOLDOWN_WORD = "cooldown"


def _length(value: Any) -> Any:
    """The length that the word stands for; a number must be above 0."""
    if value == COOLDOWN_WORD:
        return COOLDOWN
    if isinstance(value, str) or (isinstance(value, int | float) and value <= 0):
        raise ValueError(f"allowed are lengths above 0 and the word {COOLDOWN_WORD}")
    return value


FittedLength = Annotated[
    float,
    BeforeValidator(_length),
    PlainSerializer(lambda length: COOLDOWN_WORD if length == COOLDOWN else length),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": COOLDOWN_WORD}]}
    ),
]


class FitConfig(Part):
    """Scaling laws and their intervals."""

    ema: FittedLength | None = Field(
        None,
        description="EMA length that is fitted, one of those measured; default: the first. "
        "cooldown: the ends of the cooldowns (train.cooldown) instead",
    )
    min_images: Annotated[int, Field(ge=0)] = Field(
        0, description="snapshots before this many images are left out of the frontier"
    )
    onset: bool = Field(
        True,
        description="fit the joint law from where two sizes' ln J last bends down against ln D: "
        "before, no law of any floor holds",
    )
    frontier_tolerance: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.02, description="a point this far (relative) above the best so far is on the frontier"
    )
    cluster: Annotated[str, one_of("size", "run")] = Field(
        "size", description="what the bootstrap resamples: sizes with all their seeds, or runs"
    )
    bootstrap: Annotated[int, Field(ge=100)] = Field(1000, description="bootstrap draws")
    calibration: Annotated[int, Field(ge=100)] = Field(
        300, description="studies drawn from each law in this design, behind verdicts and floors"
    )
    seed: Seed = Field(0, description="seed of bootstrap and calibration")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.95, description="of intervals")
