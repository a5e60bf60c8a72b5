"""Keys of the stage train: the loop, and what a run draws its noise from."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, model_validator

from jstar.config.base import (
    AUTO,
    AutoCount,
    AutoSwitch,
    Part,
    Positive,
    PositiveInt,
    one_of,
)
from jstar.config.choices import PROCESSES
from jstar.config.refusal import refuse
from jstar.noise import Process, process


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


class CooldownConfig(Part):
    """Branches of a run whose learning rate falls to 0 at one of its snapshots (docs/cooldown.md).

    The share is that of arXiv 2405.18392, where the gain of longer ones levels off.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="of a branch's whole length, in which its learning rate falls to 0"
    )
    snapshots: PositiveInt = Field(
        4, description="snapshots at which a branch ends: log-spaced, the last always among them"
    )


def _weights(chosen: Any) -> Iterator[str]:
    """Only one thing may set the weight: the process, its gamma, or the optimal loss."""
    if chosen.noise is not None and chosen.process == "edm2":
        yield "noise is not allowed with process = 'edm2', which learns its weight"
    if chosen.noise is not None and chosen.min_snr_gamma is not None:
        yield "noise is not allowed with min_snr_gamma: both set the weight"


class Variant(Part):
    """What one ladder entry trains instead of the study's own process: all of it, or none."""

    process: Annotated[str, one_of(*PROCESSES)] = Field(description="as in train")
    noise_mean: float | None = Field(None, description="as in train")
    noise_std: Positive | None = Field(None, description="as in train")
    min_snr_gamma: Positive | None = Field(None, description="as in train")
    noise: OptimalLossNoise | None = Field(None, description="as in train")

    @model_validator(mode="after")
    def _weight(self) -> "Variant":
        refuse(_weights(self))
        return self


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
    images: PositiveInt | None = Field(None, description="length of a run in images; or flops")
    flops: Positive | None = Field(None, description="length of a run in training FLOPs; or images")
    batch: PositiveInt = Field(description="images in an optimiser step")
    learning_rate: Positive = Field(
        1e-3, description="at width learning_rate_width; tune begins here"
    )
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
    cooldown: CooldownConfig | None = Field(
        None, description="also train branches whose learning rate falls to 0 at a snapshot"
    )
    precision: Annotated[str, one_of("fp32", "bf16")] = Field(
        "fp32", description="of the matrix products; weights, loss and EMA stay float32"
    )
    compile: bool = Field(False, description="torch.compile every block")
    deterministic: bool = Field(
        False, description="on GPUs only kernels that give the same bits each time; slower"
    )
    microbatch: AutoCount = Field(
        AUTO,
        description="images in one forward pass of a process, the rest of its share is "
        "accumulated; auto: as many as fit into a GPU, on a CPU all",
    )
    activation_checkpointing: AutoSwitch = Field(
        AUTO,
        description="recompute every block in the backward pass: less memory, 1/3 slower; auto: "
        "only where nothing else makes a size fit",
    )
    parallel: Annotated[str, one_of(AUTO, "ddp", "fsdp")] = Field(
        AUTO,
        description="with several processes: weights copied (ddp) or sharded (fsdp); auto: ddp "
        "where that fits",
    )
    resident: AutoSwitch = Field(
        AUTO,
        description="keep all images in each GPU's memory; auto: where they take a quarter of it "
        "at most. Otherwise each process reads what it needs from one copy that all share",
    )
    rank_timeout_minutes: Positive = Field(
        30.0, description="how long processes wait for one of them before they fail"
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
    checkpoint_seconds: Positive = Field(
        120.0,
        description="least time between resumable checkpoints; longer where training would stand "
        "still for more than 1 % of the time, or where one takes longer to be written",
    )
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

    def length(self, flops_per_image: float) -> int:
        """Images of a run of a size whose training costs `flops_per_image`, rounded up."""
        if self.images is not None:
            return self.images
        assert self.flops is not None  # _possible
        return math.ceil(self.flops / flops_per_image)

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        refuse([*_weights(self), *self._lengths()])
        return self

    def _lengths(self) -> Iterator[str]:
        """What is wrong with the lengths of a run and of its parts."""
        if (self.images is None) == (self.flops is None):
            given = "neither" if self.images is None else "both"
            yield f"{given} of images and flops given, one says how long a run is"
        for key in ("batch", "first_snapshot"):
            if self.images is not None and getattr(self, key) > self.images:
                yield f"{key} = {getattr(self, key)} must not exceed images = {self.images}"
        if self.cooldown is not None and self.cooldown.snapshots > self.snapshots:
            yield (
                f"cooldown.snapshots = {self.cooldown.snapshots} must not exceed snapshots = "
                f"{self.snapshots}"
            )
