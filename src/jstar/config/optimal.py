"""Keys of the stage optimal: the noise scales, and how J* is estimated at them."""

from typing import Annotated

from pydantic import Field, model_validator

from jstar.config.base import Part, Positive, PositiveInt, Seed, one_of
from jstar.config.choices import ESTIMATORS, EXACT_ESTIMATORS, FORMS
from jstar.noise import sigma_grid


def estimator_conflict(
    estimator: str, *, form: str = FORMS[0], sampled: bool = False, sharded: bool = False,
    **options: float | None,
) -> str | None:  # fmt: skip
    """Why an estimator of J* cannot do what is asked of it, in one sentence, or None.

    The one rule for studies, `optimal_loss` and shards. Random subsets have a form and errors of
    their own. Sums of shards add up where no draw needs D* itself, and for all draws at once.
    options: label_drop, relative_se, seconds.
    """
    asked = {"shards": sharded, f"form = '{form}'": form != FORMS[0],
             "spread (sampled latents)": sampled, **options}  # fmt: skip
    found = [name for name, given in asked.items() if given]
    if found and estimator not in EXACT_ESTIMATORS:
        exact = ", ".join(EXACT_ESTIMATORS)
        return f"{found[0]}: not allowed with estimator = '{estimator}', only with {exact}"
    found = [name for name in found if name not in ("shards", "form = 'pair'")]
    return f"shards: not allowed with {' and '.join(found)}" if sharded and found else None


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
    queries: Annotated[int, Field(ge=2, le=10**12)] = Field(
        4096, description="noisy draws M, at most one an image"
    )
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
    def _together(self) -> "OptimalConfig":
        conflict = estimator_conflict(
            self.estimator, form=self.form, sharded=self.shards > 1, relative_se=self.relative_se
        )
        if conflict:
            raise ValueError(conflict)
        return self
