"""Keys of the stage tune."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from jstar.config.base import Part, Positive, PositiveInt, Seed


class TuneConfig(Part):
    """Short trials that choose the learning rate of each size before its runs."""

    enabled: bool = Field(
        False, description="tune every size whose ladder entry does not give its learning_rate"
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.4, description="length of a trial, as a share of the run; at least twice the warm-up"
    )
    factors: Annotated[list[Positive], Field(min_length=3)] = Field(
        [0.35, 0.6, 1.0, 1.7, 2.9],
        description="rates tried, times the width rule's, the prior; more where the best is last",
    )
    seed: Seed = Field(0, description="seed of the trials")
    batches: list[PositiveInt] = Field(
        [], description="batches tried besides the entry's own, each at its own best rate"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if sorted(set(self.factors)) != self.factors or 1.0 not in self.factors:
            found = ", ".join(f"{factor:g}" for factor in self.factors)
            raise ValueError(f"factors = {found}: they must increase and hold 1, the prior")
        return self
