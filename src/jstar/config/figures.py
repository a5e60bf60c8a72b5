"""Keys of the stage figures."""

from typing import Annotated

from pydantic import Field

from jstar.config.base import Part


class FiguresConfig(Part):
    """What the figures show."""

    sigmas: Annotated[int, Field(ge=1, le=6)] = Field(
        3, description="noise scales drawn one by one in the scaling figure, beside the total"
    )
