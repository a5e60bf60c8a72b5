"""Keys of the sampling: which images are drawn, and what they are compared with."""

from typing import Annotated

from pydantic import Field, model_validator

from jstar.config.base import Part, Positive, PositiveInt, Seed, one_of
from jstar.config.choices import SAMPLERS, SPACINGS


class SamplerConfig(Part):
    """One way from noise to images."""

    sampler: Annotated[str, one_of(*SAMPLERS)] = Field("heun", description=", ".join(SAMPLERS))
    steps: Annotated[int, Field(ge=2, le=100_000)] = Field(
        18, description="noise scales; heun and edm call the network 2 steps - 1 times"
    )
    spacing: Annotated[str, one_of(*SPACINGS)] = Field(
        "polynomial", description="of the noise scales: " + ", ".join(SPACINGS)
    )
    rho: Positive = Field(7.0, description="of the polynomial spacing")
    sigma_min: Positive = Field(0.002, description="last noise scale before 0")
    sigma_max: Positive = Field(80.0, description="first noise scale")
    eta: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="ddim: share of noise")
    churn: Annotated[float, Field(ge=0)] = Field(40.0, description="edm: S_churn")
    guidance: float = Field(
        1.0, description="classifier-free guidance w; 1 is none, others need a model with labels"
    )

    @model_validator(mode="after")
    def _decreasing(self) -> "SamplerConfig":
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min = {self.sigma_min:g} must be below sigma_max = {self.sigma_max:g}"
            )
        return self


class SamplingConfig(SamplerConfig):
    """Images of the snapshots, their quality, and the sampling theory. Not part of `all` unless on.

    The target `sampling` makes them for any study.
    """

    enabled: bool = Field(False, description="make the images and their figures with the study")
    count: Annotated[int, Field(ge=64)] = Field(2_000, description="images of each snapshot")
    seed: Seed = Field(0, description="seed of the start noise: the same for every model")
    batch: PositiveInt = Field(500, description="images in one forward pass; changes no number")
    snapshots: PositiveInt = Field(
        1, description="snapshots of a run, log-spaced, the last among them"
    )
    ema: Positive | None = Field(None, description="EMA length sampled; default: as in fit")
    features: str = Field(
        "classifier",
        description="a small classifier trained on the labels, or the path of a TorchScript file "
        "uint8 [B, 3, H, W] -> features, such as inception-2015-12-05.pt",
    )
    sweep: list[SamplerConfig] = Field(
        [], description="further samplers, the last snapshot only: keys from sampler to guidance"
    )
