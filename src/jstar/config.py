"""The study file: typed, frozen, checked. Unknown keys and bad values end in one sentence.

`Study.load(path)` is the only way in. `Study.content(stage)` is what a rule may depend on:
the part of the study that changes the numbers of that stage, and nothing else.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from jstar.errors import JstarError, nearest
from jstar.noise import PROCESSES, Process, process, sigma_grid
from jstar.refusal import sentence

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=60)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

SOURCES = (
    "digits", "npz", "cifar10", "mnist", "fashion-mnist", "imagenet32", "imagenet64", "imagenet",
    "tiny-imagenet", "images", "parquet", "webdataset", "edm2",
)  # fmt: skip
ESTIMATORS = ("exact", "exact_by_class", "snis", "dol", "cdol")
EXACT_ESTIMATORS = ("exact", "exact_by_class")  # sums over all points: these have shards


def _one_of(*allowed: str) -> AfterValidator:
    """Like Literal, but the error names the nearest allowed word."""

    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"allowed are {', '.join(allowed)}{nearest(value, allowed)}")
        return value

    return AfterValidator(check)


class Part(BaseModel):
    """Base of every part of a study: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def checked(cls, values: dict[str, Any], origin: str) -> Self:
        """Made of `values`. Raises JstarError: one sentence, which begins with `origin`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise JstarError(f"{origin}: {sentence(error, cls)}") from None


class SigmaConfig(Part):
    """The noise scales at which J* and every model's loss are measured."""

    min: Positive = Field(0.02, description="smallest noise scale, in units of the scaled data")
    max: Positive = Field(80.0, description="largest noise scale")
    count: Annotated[int, Field(ge=2, le=512)] = Field(
        24, description="number of noise scales, equally spaced in ln sigma"
    )

    @model_validator(mode="after")
    def _increasing(self) -> "SigmaConfig":
        if self.min >= self.max:
            raise ValueError(f"min = {self.min:g} must be below max = {self.max:g}")
        return self

    @property
    def values(self) -> list[float]:
        """Noise scales, increasing, [S]."""
        return [float(s) for s in sigma_grid(self.min, self.max, self.count)]


class DatasetConfig(Part):
    """Which images, and how the training distribution is made from them."""

    name: Name = Field(description="name of the dataset's folder under results/data")
    source: Annotated[str, _one_of(*SOURCES)] = Field(
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


class OptimalConfig(Part):
    """How the optimal loss J* is estimated."""

    estimator: Annotated[str, _one_of(*ESTIMATORS)] = Field("exact", description="J* estimator")
    queries: PositiveInt = Field(4096, description="noisy draws M, at most one an image")
    seed: Seed = Field(0, description="seed of the draws")
    relative_se: Positive | None = Field(
        None, description="stop before all draws are used once every relative error is below this"
    )
    subset: PositiveInt | None = Field(
        None, description="points L in a random subset (snis, dol, cdol); default 5000"
    )
    repeats: Annotated[int, Field(ge=2)] = Field(8, description="random subsets (snis, dol, cdol)")
    own_weight: Annotated[float, Field(ge=1)] | None = Field(
        None, description="C of cdol: the source's own term has weight 1/C; default 4N/L"
    )
    shards: PositiveInt = Field(
        1, description="jobs that share the work (exact, exact_by_class); changes no number"
    )

    @model_validator(mode="after")
    def _shared(self) -> "OptimalConfig":
        if self.shards > 1 and self.estimator not in EXACT_ESTIMATORS:
            raise ValueError(
                f"shards = {self.shards} is not allowed with estimator = '{self.estimator}', "
                f"only with {', '.join(EXACT_ESTIMATORS)}"
            )
        if self.shards > 1 and self.relative_se is not None:
            raise ValueError(f"shards = {self.shards} is not allowed with relative_se")
        return self


class ModelConfig(Part):
    """What all sizes of the ladder share; the depth of each is its one dial."""

    patch: PositiveInt = Field(2, description="pixels on a side of a token")
    width_per_depth: PositiveInt = Field(64, description="width = width_per_depth x depth")
    head_width: PositiveInt = Field(64, description="width of one attention head")
    class_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="share of labels replaced by 'no label'; 1 trains without labels"
    )
    classic: bool = Field(False, description="the 2023 DiT block: LayerNorm, no QK-norm")


class LadderEntry(Part):
    """One size of the ladder."""

    name: Name = Field(description="name of the size, for example dit-120m")
    depth: Annotated[int, Field(ge=1, le=128)] = Field(description="number of blocks: the dial")
    width: PositiveInt | None = Field(None, description="width, if not width_per_depth x depth")
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        [0], description="seeds; one training run each"
    )


class TrainConfig(Part):
    """The training loop. The clock is the number of images seen."""

    process: Annotated[str, _one_of(*PROCESSES)] = Field("edm", description="training variant")
    noise_mean: float | None = Field(None, description="mean of ln sigma, where the law has one")
    noise_std: Positive | None = Field(None, description="std of ln sigma, where it has one")
    min_snr_gamma: Positive | None = Field(
        None, description="weight min(1 / sigma^2, gamma) on the x0 error, instead of the process'"
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
    precision: Annotated[str, _one_of("fp32", "bf16")] = Field(
        "fp32", description="of the matrix products; weights, loss and EMA stay float32"
    )
    compile: bool = Field(False, description="torch.compile every block")
    microbatch: PositiveInt | None = Field(
        None, description="images in one forward pass; the rest of the batch is accumulated"
    )
    activation_checkpointing: bool = Field(
        False, description="recompute every block in the backward pass: less memory, 1/3 slower"
    )
    parallel: Annotated[str, _one_of("ddp", "fsdp")] = Field(
        "ddp", description="with several processes: weights copied (ddp) or sharded (fsdp)"
    )
    time_budget_minutes: Positive | None = Field(
        None, description="then write a checkpoint and exit with status 75: start me again"
    )
    peak_flops: Positive | None = Field(
        None, description="peak FLOP/s of a device, for MFU; default: looked up by its name"
    )
    writer: Annotated[str, _one_of("tensorboard", "wandb")] | None = Field(
        None, description="also send the telemetry there; needs that package installed"
    )
    checkpoint_seconds: Positive = Field(120.0, description="time between resumable checkpoints")
    checkpoint_images: PositiveInt | None = Field(
        None, description="images between resumable checkpoints, besides the time"
    )

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


class FitConfig(Part):
    """Scaling laws and their intervals."""

    ema: Positive | None = Field(None, description="EMA length that is fitted; default: the first")
    min_images: Annotated[int, Field(ge=0)] = Field(
        0, description="snapshots before this many images are left out of the frontier"
    )
    frontier_tolerance: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.02, description="a point this far (relative) above the best so far is on the frontier"
    )
    cluster: Annotated[str, _one_of("size", "run")] = Field(
        "size", description="what the bootstrap resamples: sizes with all their seeds, or runs"
    )
    bootstrap: Annotated[int, Field(ge=100)] = Field(1000, description="bootstrap draws")
    seed: Seed = Field(0, description="seed of the bootstrap")
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


class Study(Part):
    """A whole study: one file in config/."""

    study: Name = Field(description="name of the study's folder under results")
    dataset: DatasetConfig
    sigmas: SigmaConfig = SigmaConfig()
    optimal: OptimalConfig = OptimalConfig()
    model: ModelConfig = ModelConfig()
    ladder: Annotated[list[LadderEntry], Field(min_length=1)]
    train: TrainConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    fit: FitConfig = FitConfig()
    figures: FiguresConfig = FiguresConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        by_class = self.optimal.estimator == "exact_by_class"
        if by_class != self.conditional:
            raise ValueError(
                f"optimal.estimator = '{self.optimal.estimator}' does not fit model.class_drop = "
                f"{self.model.class_drop:g}: a model that sees labels (class_drop below 1) has the "
                "optimal loss 'exact_by_class', one that does not (class_drop 1) any other"
            )
        names = [entry.name for entry in self.ladder]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"ladder: the name '{name}' is used twice, names must differ")
        for key, chosen in (("evaluate", self.evaluate.ema), ("fit", [self.fit.ema])):
            for length in chosen or []:
                if length is not None and length not in self.train.ema:
                    raise ValueError(
                        f"{key}.ema: {length:g} is not trained, allowed are "
                        + ", ".join(f"{e:g}" for e in self.train.ema)
                    )
        return self

    # -- loading ---------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> "Study":
        """Read and check a study file. Raises JstarError: one sentence naming file and key."""
        path = Path(path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise JstarError(f"{path}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" at line {where.line + 1}" if where else ""
            raise JstarError(f"{path}: is not valid YAML{line}") from error
        return cls.parse(raw, str(path))

    @classmethod
    def parse(cls, raw: Any, origin: str = "study") -> "Study":
        """Check an already loaded study. `origin` is named in the error."""
        if not isinstance(raw, dict):
            raise JstarError(f"{origin}: holds {type(raw).__name__}, a study is a set of keys")
        return cls.checked(raw, origin)

    # -- what the stages ask ----------------------------------------------------------------

    @property
    def conditional(self) -> bool:
        """Whether the models see class labels; their optimal loss is then class by class."""
        return self.model.class_drop < 1

    @property
    def process(self) -> Process:
        """The training process: noise law, weight and preconditioning."""
        train = self.train
        return process(
            train.process,
            sigma_data=train.sigma_data,
            mean=train.noise_mean,
            std=train.noise_std,
            min_snr_gamma=train.min_snr_gamma,
        )

    def entry(self, name: str) -> LadderEntry:
        """The ladder entry called `name`."""
        for entry in self.ladder:
            if entry.name == name:
                return entry
        names = [e.name for e in self.ladder]
        raise JstarError(
            f"model: '{name}' is not in the ladder of study '{self.study}', allowed are "
            + ", ".join(names)
            + nearest(name, names)
        )

    def runs(self) -> list[tuple[str, int]]:
        """(model, seed) of every training run, in the ladder's order."""
        return [(entry.name, seed) for entry in self.ladder for seed in entry.seeds]

    def content(self, stage: str, model: str | None = None) -> str:
        """Canonical JSON of what changes the numbers of `stage` (rules use it as a param)."""
        tree = self.model_dump(mode="json")
        keys = {
            "prepare": ["dataset"],
            "optimal": ["sigmas", "optimal"],
            "oracle": ["sigmas", "evaluate.queries", "evaluate.seed", "optimal.estimator"],
            "train": ["model", "train"],
            "evaluate": ["evaluate.ema"],
            "fit": ["study", "fit", "train.process"],
            "figures": ["study", "figures"],
        }[stage]
        picked: dict[str, Any] = {}
        for key in keys:
            value: Any = tree
            for word in key.split("."):
                value = value[word]
            picked[key] = value
        if stage == "optimal":
            picked["optimal"].pop("shards")
        if stage == "train":
            # How often a run is saved, and how its memory is split, changes no number.
            for key in (
                "checkpoint_seconds", "checkpoint_images", "time_budget_minutes", "microbatch",
                "activation_checkpointing", "parallel", "peak_flops", "writer",
            ):  # fmt: skip
                picked["train"].pop(key)
            if model is not None:
                entry = self.entry(model).model_dump(mode="json")
                entry.pop("seeds")
                picked["entry"] = entry
        return json.dumps(picked, sort_keys=True)
