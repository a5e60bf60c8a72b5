"""Keys of training and evaluation: the ladder of models, the loop, the measured losses."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from jstar.config.base import Name, Part, Positive, PositiveInt, Seed, one_of
from jstar.errors import nearest
from jstar.noise import PROCESSES, Process, process

# Name -> (depth, width). Width = 64 x depth, but for the two ends (arXiv 2506.13763: 120M, 1.5B).
SIZES = {
    "dit-120m": (11, 768),
    "dit-206m": (14, 896),
    "dit-367m": (17, 1088),
    "dit-596m": (20, 1280),
    "dit-905m": (23, 1472),
    "dit-1.5b": (28, 1728),
}


class ModelConfig(Part):
    """What all sizes of the ladder share; the depth of each is its one dial."""

    patch: PositiveInt = Field(2, description="pixels on a side of a token")
    width_per_depth: PositiveInt = Field(64, description="width = width_per_depth x depth")
    head_width: PositiveInt = Field(64, description="width of one attention head")
    class_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="share of labels replaced by 'no label'; 1 trains without labels"
    )
    classic: bool = Field(False, description="the 2023 DiT block: LayerNorm, no QK-norm")


class OptimalLossNoise(Part):
    """Weight from the optimal loss, noise law from the gap to it (`jstar.train.optimal_noise_law`).

    The constants are not published. mu and s are EDM's own emphasis, where J* says nothing; a,
    w_max and share were chosen on the digits, seed 0 (with a = 1 the gap at small sigma is larger,
    that at large sigma smaller). On Fashion-MNIST they did worse than the own laws: choose them for
    the data (docs/noise-law.md).
    """

    law: Annotated[str, one_of("optimal_loss")] = Field(
        description="optimal_loss: p(sigma) in proportion to weight x gap, followed while training"
    )
    a: Positive = Field(
        0.5, description="of the relative loss J/J*, against the bell of height 1/(s√2π) on EDM's"
    )
    w_max: Positive = Field(
        2.0, description="cap on 1/J*, in units of 1/sigma_data²: binds where J* is nearly nothing"
    )
    mu: float = Field(-1.2, description="mean of the bell in ln sigma; default: EDM's law")
    s: Positive = Field(1.2, description="standard deviation of the bell; default: EDM's law")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="share of draws uniform in ln sigma, so that no noise scale is lost"
    )
    memory: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.1, description="mean age of the losses behind the gap, relative to the run so far"
    )


def _weight_once(chosen: Any) -> Any:
    """Only one thing may set the weight: the process, its gamma, or the optimal loss."""
    if chosen.noise is not None and chosen.process == "edm2":
        raise ValueError("noise is not allowed with process = 'edm2', which learns its weight")
    if chosen.noise is not None and chosen.min_snr_gamma is not None:
        raise ValueError("noise is not allowed with min_snr_gamma: both set the weight")
    return chosen


class Variant(Part):
    """What one ladder entry trains instead of the study's own process: all of it, or none."""

    process: Annotated[str, one_of(*PROCESSES)] = Field(description="as in train")
    noise_mean: float | None = Field(None, description="as in train")
    noise_std: Positive | None = Field(None, description="as in train")
    min_snr_gamma: Positive | None = Field(None, description="as in train")
    noise: OptimalLossNoise | None = Field(None, description="as in train")

    _weight = model_validator(mode="after")(_weight_once)


class LadderEntry(Part):
    """One size of the ladder. A published name, dit-120m to dit-1.5b, says depth and width."""

    name: Name = Field(description="name of the size, for example dit-120m")
    depth: Annotated[int, Field(ge=1, le=128)] = Field(
        description="number of blocks: the dial; may be left out under a published name"
    )
    width: PositiveInt | None = Field(None, description="width, if not width_per_depth x depth")
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        [0], description="seeds; one training run each"
    )
    variant: Variant | None = Field(
        None, description="another training process for this entry: process, noise_mean, …"
    )

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("depth"))

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        """Depth and width of a published name, where the entry says neither."""
        if not isinstance(values, dict) or "name" not in values or "depth" in values:
            return values
        name = str(values["name"])
        if name not in SIZES:
            raise ValueError(
                f"depth is missing: '{name}' is none of the published sizes {', '.join(SIZES)}"
                + nearest(name, SIZES)
            )
        depth, width = SIZES[name]
        return {"width": width, **values, "depth": depth}


class TrainConfig(Part):
    """The training loop. The clock is the number of images seen."""

    process: Annotated[str, one_of(*PROCESSES)] = Field("edm", description="training variant")
    noise_mean: float | None = Field(None, description="mean of ln sigma, where the law has one")
    noise_std: Positive | None = Field(None, description="std of ln sigma, where it has one")
    min_snr_gamma: Positive | None = Field(
        None, description="weight min(1 / sigma^2, gamma) on the x0 error, instead of the process'"
    )
    noise: OptimalLossNoise | None = Field(
        None, description="weight and noise law from the optimal loss, instead of the process'"
    )
    sigma_data: Positive = Field(0.5, description="standard deviation of the scaled data")
    images: PositiveInt = Field(description="length of a run in images")
    batch: PositiveInt = Field(description="images in an optimiser step")
    learning_rate: Positive = Field(1e-3, description="at width learning_rate_width")
    learning_rate_width: PositiveInt = Field(
        768, description="learning rate = learning_rate x sqrt(learning_rate_width / width)"
    )
    warmup_images: Annotated[int, Field(ge=0)] = Field(10_000, description="linear warm-up")
    betas: tuple[float, float] = Field((0.9, 0.99), description="AdamW")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW")
    clip_norm: Positive = Field(1.0, description="gradient norm at which gradients are clipped")
    ema: Annotated[list[Positive], Field(min_length=1)] = Field(
        [0.1], description="lengths of the power-function EMAs, relative to the run so far"
    )
    snapshots: PositiveInt = Field(24, description="snapshots, log-spaced in images")
    first_snapshot: PositiveInt = Field(2_000, description="images at the first snapshot")
    precision: Annotated[str, one_of("fp32", "bf16")] = Field(
        "fp32", description="of the matrix products; weights, loss and EMA stay float32"
    )
    compile: bool = Field(False, description="torch.compile every block")
    microbatch: PositiveInt | None = Field(
        None, description="images in one forward pass; the rest of the batch is accumulated"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute every block in the backward pass: less memory, 1/3 slower"
    )
    parallel: Annotated[str, one_of("ddp", "fsdp")] = Field(
        "ddp", description="with several processes: weights copied (ddp) or sharded (fsdp)"
    )
    time_budget_minutes: Positive | None = Field(
        None, description="then write a checkpoint and exit with status 75: start me again"
    )
    peak_flops: Positive | None = Field(
        None, description="peak FLOP/s of a device, for MFU; default: looked up by its name"
    )
    writer: Annotated[str, one_of("tensorboard", "wandb")] | None = Field(
        None, description="also send the telemetry there; needs that package installed"
    )
    checkpoint_seconds: Positive = Field(120.0, description="time between resumable checkpoints")
    checkpoint_images: PositiveInt | None = Field(
        None, description="images between resumable checkpoints, besides the time"
    )

    def make_process(self) -> Process:
        """The training process: noise law, weight and preconditioning."""
        return process(**self.process_facts())

    def process_facts(self) -> dict[str, Any]:
        """Arguments of `jstar.noise.process`, as a run's record keeps them."""
        return {
            "name": self.process,
            "sigma_data": self.sigma_data,
            "mean": self.noise_mean,
            "std": self.noise_std,
            "min_snr_gamma": self.min_snr_gamma,
        }

    _weight = model_validator(mode="after")(_weight_once)

    @model_validator(mode="after")
    def _lengths(self) -> "TrainConfig":
        if self.batch > self.images:
            raise ValueError(f"batch = {self.batch} must not exceed images = {self.images}")
        if self.first_snapshot > self.images:
            raise ValueError(
                f"first_snapshot = {self.first_snapshot} must not exceed images = {self.images}"
            )
        return self


class EvaluateConfig(Part):
    """Loss on the fixed sigma grid: the same images and noise for every model."""

    queries: PositiveInt = Field(1024, description="noisy draws a noise scale")
    seed: Seed = Field(1, description="seed of the draws (another than optimal.seed)")
    batch: PositiveInt = Field(1024, description="images in one forward pass")
    ema: list[Positive] | None = Field(None, description="EMA lengths measured; default: all")
