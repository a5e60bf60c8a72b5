"""What the jobs ask of a machine."""

from typing import Annotated

from pydantic import Field

from jstar.config.base import Part, Positive, PositiveInt, one_of
from jstar.hardware import PLANNED


class ResourcesConfig(Part):
    """What Snakemake asks for, a job of a stage. Changing it never reruns anything."""

    train_threads: PositiveInt = Field(1, description="CPU threads of a training job")
    train_gpus: Annotated[int, Field(ge=0)] = Field(
        0, description="GPUs of a training job, on each of its nodes"
    )
    train_nodes: PositiveInt = Field(1, description="nodes of a training job; several need SLURM")
    gpu: Annotated[str, one_of(*PLANNED)] = Field(
        "H100", description="kind of these GPUs, for jstar plan: whether every size fits, how fast"
    )
    disk_gb_per_second: Positive = Field(
        0.5, description="how fast one node writes large files to results/, for jstar plan"
    )
    train_minutes: PositiveInt = Field(
        60, description="time limit of a training job; a longer run goes on in the next"
    )
    evaluate_minutes: PositiveInt = Field(
        60, description="time limit of an evaluation job; one that is ended early loses a network"
    )
    flops_per_second: Positive | None = Field(
        None, description="speed of one training device, for jstar plan; default: measured"
    )
    train_mem_mb: PositiveInt = Field(2000, description="memory of a training job")
    optimal_threads: PositiveInt = Field(
        16, description="CPU threads of an optimal-loss job; fewer if --cores allows no more"
    )
    verify_arrays: bool = Field(
        True,
        description="compare images and posterior means with their checksums before every job that "
        "reads them, seconds a GB; false: only shape and size",
    )
    optimal_mem_mb: PositiveInt = Field(4000, description="memory of an optimal-loss job")

    @property
    def processes(self) -> int:
        """Processes of a training run: one a GPU, one without."""
        return max(1, self.train_gpus) * self.train_nodes

    def save_seconds(self, size: float, *, sharded: bool) -> float:
        """Seconds to write a checkpoint of `size` bytes; every node its share of a sharded one.

        The processes of a node share its disk. FSDP's parts are as large as each other, but for
        the few parameters with fewer rows than processes.
        """
        return size / (self.train_nodes if sharded else 1) / (1e9 * self.disk_gb_per_second)
