"""Keys of the stage optimal: the noise scales, and how J* is estimated at them."""

from typing import Annotated

from pydantic import Field, model_validator

from jstar.config.base import Part, Positive, PositiveInt, Seed, one_of
from jstar.config.choices import ESTIMATORS, EXACT_ESTIMATORS, FORMS
from jstar.noise import sigma_grid


class SigmaConfig(Part):
    """The noise scales at which J* and every model's loss are measured."""

    min: Positive = Field(0.02, description="smallest noise scale, in units of the scaled data")
    max: Positive = Field(80.0, description="largest noise scale")
    count: Annotated[int, Field(ge=2, le=512)] = Field(
        24, description="number of noise scales, equally spaced in ln sigma"
    )

    @model_validator(mode="after")
    def _increasing(self) -> "SigmaConfig":
        if self.min >= self.max:
            raise ValueError(f"min = {self.min:g} must be below max = {self.max:g}")
        return self

    @property
    def values(self) -> list[float]:
        """Noise scales, increasing, [S]."""
        return [float(s) for s in sigma_grid(self.min, self.max, self.count)]


class OptimalConfig(Part):
    """How the optimal loss J* is estimated."""

    estimator: Annotated[str, one_of(*ESTIMATORS)] = Field("exact", description="J* estimator")
    form: Annotated[str, one_of(*FORMS)] = Field(
        FORMS[0], description="of the exact estimators: " + ", ".join(FORMS) + " (the paper's)"
    )
    queries: PositiveInt = Field(4096, description="noisy draws M, at most one an image")
    seed: Seed = Field(0, description="seed of the draws")
    relative_se: Positive | None = Field(
        None, description="stop before all draws are used once every relative error is below this"
    )
    subset: PositiveInt | None = Field(
        None, description="points L in a random subset (snis, dol, cdol); default 5000"
    )
    repeats: Annotated[int, Field(ge=2)] = Field(8, description="random subsets (snis, dol, cdol)")
    own_weight: Annotated[float, Field(ge=1)] | None = Field(
        None, description="C of cdol: the source's own term has weight 1/C; default 4N/L"
    )
    shards: PositiveInt = Field(
        1, description="jobs that share the work (exact, exact_by_class); changes no number"
    )

    @model_validator(mode="after")
    def _shared(self) -> "OptimalConfig":
        if self.shards > 1 and self.estimator not in EXACT_ESTIMATORS:
            raise ValueError(
                f"shards = {self.shards} is not allowed with estimator = '{self.estimator}', "
                f"only with {', '.join(EXACT_ESTIMATORS)}"
            )
        if self.shards > 1 and self.relative_se is not None:
            raise ValueError(f"shards = {self.shards} is not allowed with relative_se")
        if self.form != FORMS[0] and self.estimator not in EXACT_ESTIMATORS:
            raise ValueError(
                f"form = '{self.form}' is not allowed with estimator = '{self.estimator}', which "
                "has a form of its own"
            )
        if self.relative_se is not None and self.estimator not in EXACT_ESTIMATORS:
            raise ValueError(f"relative_se is not allowed with estimator = '{self.estimator}'")
        if self.shards > 1 and self.form == "moment":
            raise ValueError(f"shards = {self.shards} is not allowed with form = 'moment'")
        return self
