"""Keys of the stage evaluate."""

from pydantic import Field

from jstar.config.base import Part, Positive, PositiveInt, Seed


class EvaluateConfig(Part):
    """Loss on the fixed sigma grid: the same images and noise for every model."""

    queries: PositiveInt = Field(1024, description="noisy draws a noise scale")
    seed: Seed = Field(1, description="seed of the draws (another than optimal.seed)")
    batch: PositiveInt = Field(1024, description="images in one forward pass")
    ema: list[Positive] | None = Field(
        None,
        description="EMA lengths measured; default: train.ema. Others are made of the stored "
        "snapshots where these tell them (docs/averages.md)",
    )
