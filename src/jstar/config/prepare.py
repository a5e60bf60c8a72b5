"""Keys of the stage prepare: which images, and how they become the training distribution."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jstar.config.base import Name, Part, Positive, PositiveInt, one_of
from jstar.config.choices import SOURCES

# How a layout is to be read where it leaves that open.
DECLARATIONS = (
    "labels", "nested", "split", "image_column", "label_column", "extension", "max_pixels",
)  # fmt: skip


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
    labels: Literal["folder", "json", "column", "none"] | None = Field(
        None,
        description="where the class of an image is read from, if its files leave that open: "
        "folder, json (dataset.json; webdataset: the .json beside it), column (parquet) or none",
    )
    nested: Literal["top", "leaf"] | None = Field(
        None, description="folders inside class folders: the class is the first folder or the last"
    )
    split: str | None = Field(
        None, description="the split to read where the files hold several: train, validation, test"
    )
    image_column: str | None = Field(None, description="parquet: column of the images")
    label_column: str | None = Field(
        None, description="parquet: column of the class; webdataset: its field in the .json"
    )
    extension: str | None = Field(
        None, description="webdataset: suffix of the image, where a sample has several: jpg"
    )
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = Field(
        100_000_000, description="image files: larger ones are refused, before they are decoded"
    )
    mirror: bool = Field(
        False,
        description="train on horizontally mirrored images as well; lightningdit: on latents_flip",
    )
    limit: PositiveInt | None = Field(None, description="keep only the first images")
    holdout: Annotated[int, Field(ge=0)] = Field(
        0, description="images set aside, never trained on; their loss is reported separately"
    )
    vae: str | None = Field(
        None, description="folder of a diffusers AutoencoderKL: train on its latents of the images"
    )
    posterior: Literal["gaussian", "mean"] = Field(
        "gaussian",
        description="latents with a deviation: train on draws from them, or on their means alone",
    )
    latent_std: Positive = Field(
        0.5, description="latents: standard deviation in the model's data scale (train.sigma_data)"
    )
    channel_mean: list[float] | None = Field(
        None, description="latents: mean of each channel; default: as their maker states"
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
