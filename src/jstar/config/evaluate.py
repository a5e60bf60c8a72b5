"""Keys of the stage evaluate."""

from typing import Annotated

from pydantic import Field

from jstar.config.base import Part, Positive, PositiveInt, Seed, one_of


class EvaluateConfig(Part):
    """Loss on the fixed sigma grid: the same images and noise for every model."""

    queries: PositiveInt = Field(1024, description="noisy draws a noise scale")
    seed: Seed = Field(1, description="seed of the draws (another than optimal.seed)")
    batch: PositiveInt = Field(1024, description="images in one forward pass")
    precision: Annotated[str, one_of("fp32", "bf16")] = Field(
        "fp32",
        description="of the matrix products; bf16 is faster on GPUs and biased at small noise "
        "scales: what it changes is measured on the last snapshot and stands in losses.json",
    )
    shards: PositiveInt = Field(
        1, description="jobs that share the snapshots of a run; changes no number"
    )
    ema: list[Positive] | None = Field(
        None,
        description="EMA lengths measured; default: train.ema. Others are made of the stored "
        "snapshots where these tell them (docs/averages.md)",
    )
