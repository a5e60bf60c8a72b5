"""Keys of the stage prepare: which images, and how they become the training distribution."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jstar.config.base import Name, Part, Positive, PositiveInt, one_of
from jstar.config.choices import SOURCES


class DatasetConfig(Part):
    """Which images, and how the training distribution is made from them."""

    name: Name = Field(description="name of the dataset's folder under results/data")
    source: Annotated[str, one_of(*SOURCES)] = Field(
        description="reader of the files as they are distributed: " + ", ".join(SOURCES)
    )
    path: str | None = Field(
        None, description="file or folder the reader reads; without it, free sets are downloaded"
    )
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="checksum that the file at `path` must have"
    )
    size: PositiveInt | None = Field(
        None, description="image files: side of the centre crop; default: they share one size"
    )
    channels: Literal[1, 3] = Field(3, description="image files: 3 (grey is tripled) or 1 (grey)")
    mirror: bool = Field(False, description="train on horizontally mirrored images as well")
    limit: PositiveInt | None = Field(None, description="keep only the first images")
    holdout: Annotated[int, Field(ge=0)] = Field(
        0, description="images set aside, never trained on; their loss is reported separately"
    )
    vae: str | None = Field(
        None, description="folder of a diffusers AutoencoderKL: train on its latents of the images"
    )
    latent_std: Positive = Field(
        0.5, description="latents: standard deviation in the model's data scale (train.sigma_data)"
    )
    channel_mean: list[float] | None = Field(
        None, description="latents: mean of each channel; default: as the VAE or EDM2 states"
    )
    channel_std: list[Positive] | None = Field(
        None, description="latents: standard deviation of each channel; default: likewise"
    )

    @model_validator(mode="after")
    def _latents(self) -> "DatasetConfig":
        if (self.channel_mean is None) != (self.channel_std is None):
            raise ValueError("channel_mean and channel_std must be given together")
        if self.channel_mean and len(self.channel_mean) != len(self.channel_std or []):
            raise ValueError("channel_mean and channel_std must have one value a channel each")
        return self
