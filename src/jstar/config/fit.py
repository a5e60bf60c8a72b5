"""Keys of the stage fit."""

from typing import Annotated

from pydantic import Field

from jstar.config.base import Part, Positive, Seed, one_of


class FitConfig(Part):
    """Scaling laws and their intervals."""

    ema: Positive | None = Field(
        None, description="EMA length that is fitted, one of those measured; default: the first"
    )
    min_images: Annotated[int, Field(ge=0)] = Field(
        0, description="snapshots before this many images are left out of the frontier"
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
