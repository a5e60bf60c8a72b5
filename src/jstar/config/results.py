"""Keys of the stages after training, and of the machines they run on."""

from typing import Annotated

from pydantic import Field

from jstar.config.base import Part, Positive, PositiveInt, Seed, one_of


class FitConfig(Part):
    """Scaling laws and their intervals."""

    ema: Positive | None = Field(None, description="EMA length that is fitted; default: the first")
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


class FiguresConfig(Part):
    """What the figures show."""

    sigmas: Annotated[int, Field(ge=1, le=6)] = Field(
        3, description="noise scales drawn one by one in the scaling figure, beside the total"
    )


class ResourcesConfig(Part):
    """What Snakemake asks for, a job of a stage. Changing it never reruns anything."""

    train_threads: PositiveInt = Field(1, description="CPU threads of a training job")
    train_gpus: Annotated[int, Field(ge=0)] = Field(
        0, description="GPUs of a training job, on each of its nodes"
    )
    train_nodes: PositiveInt = Field(1, description="nodes of a training job; several need SLURM")
    train_minutes: PositiveInt = Field(
        60, description="time limit of a training job; a longer run goes on in the next"
    )
    flops_per_second: Positive | None = Field(
        None, description="speed of one training device, for jstar plan; default: measured"
    )
    train_mem_mb: PositiveInt = Field(2000, description="memory of a training job")
    optimal_threads: PositiveInt = Field(
        16, description="CPU threads of an optimal-loss job; fewer if --cores allows no more"
    )
    optimal_mem_mb: PositiveInt = Field(4000, description="memory of an optimal-loss job")
