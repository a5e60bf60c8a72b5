"""What every part of a study is made of: frozen, no unknown keys, one sentence when wrong."""

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from jstar.config.refusal import sentence
from jstar.errors import JstarError, nearest

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=60)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1, le=10**12)]  # more is a slip of the pen
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def one_of(*allowed: str) -> AfterValidator:
    """Like Literal, but the error names the nearest allowed word."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"allowed are {', '.join(allowed)}{nearest(value, allowed)}")
        return value

    return AfterValidator(check)


AUTO = "auto"  # chosen by the program, as far as the hardware allows


def _check_count(value: Any) -> Any:
    if value == AUTO or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"allowed are {AUTO} and whole numbers from 1 on")


def _check_switch(value: Any) -> Any:
    if value == AUTO or type(value) is bool:
        return value
    raise ValueError(f"allowed are {AUTO}, true and false")


AutoCount = Annotated[
    int | str,
    BeforeValidator(_check_count),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": AUTO}]}),
]
AutoSwitch = Annotated[
    bool | str,
    BeforeValidator(_check_switch),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": AUTO}]}),
]


class Part(BaseModel):
    """Base of every part of a study: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def checked(cls, values: dict[str, Any], origin: str) -> Self:
        """Made of `values`. Raises JstarError: one sentence, which begins with `origin`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise JstarError(f"{origin}: {sentence(error, cls)}") from None
