"""What the processes of a rehearsal are told, and what they tell: JSON in a scratch folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jstar.config import Study
from jstar.config.reading import parse_json
from jstar.model import DiTConfig
from jstar.records import read_json, write_json
from jstar.train.footprint import Cut, Load

PARTS = 3  # stretches of steps that are timed; a fourth follows the checkpoint
OPENING = 2  # steps before them, one by one: they compile, and are compared with the golden


@dataclass(frozen=True)
class Orders:
    """One size's rehearsal. `part_seconds`: how long one timed stretch of steps should take."""

    study: str  # as JSON
    model: str
    seed: int
    data: str
    curve: str | None
    folder: str
    device: str | None
    threads: int | None
    part_seconds: float
    golden_seconds: float

    @property
    def checked(self) -> Study:
        """The study."""
        return Study.parse(parse_json(self.study, "rehearse"), "rehearse")

    def file(self, name: str) -> Path:
        """A file of the scratch folder."""
        return Path(self.folder) / name

    @property
    def state(self) -> Path:
        """Folder of the run's resumable state."""
        return Path(self.folder) / "state"

    def write(self) -> Path:
        """Write them where the processes are pointed to."""
        write_json(self.file("orders.json"), asdict(self))
        return self.file("orders.json")

    @classmethod
    def read(cls, path: Path) -> "Orders":
        """Undo `write`."""
        return cls(**read_json(path))


@dataclass(frozen=True)
class TrainReport:
    """Of the run that is killed. `losses`: of the opening steps and then of every part."""

    kind: str
    device: str
    world: int
    threads: int
    shape: dict[str, Any]
    cut: dict[str, Any]
    image_bytes: float
    chunk_bytes: float
    part_steps: int
    images_per_second: float
    memory: float | None
    compile_seconds: float
    losses: list[float | None]
    gradient_norm: float | None
    save_seconds: float
    save_bytes: float
    planned_save_bytes: float
    snapshot_seconds: float
    snapshot_bytes: float
    digests: dict[str, str]  # of every tensor of the state after the last part

    def load(self, study: Study, model: str) -> tuple[Load, Cut]:
        """What the plan computes from."""
        config, shape = study.train_of(model), DiTConfig(**self.shape)
        load = Load(model, shape, config, self.world, self.image_bytes, self.chunk_bytes)
        return load, Cut(**self.cut)


@dataclass(frozen=True)
class ResumeReport:
    """Of the run that goes on from the killed one's checkpoint."""

    step: int
    loss: float | None
    digests: dict[str, str]


@dataclass(frozen=True)
class GoldenReport:
    """Float32 on a CPU, and the same numbers as the run had them.

    images: of one step that were compared; all of the batch, or what there was time for.
    """

    images: int
    whole: bool
    loss: list[float]
    gradient_norm: float | None
    measured: list[float]


@dataclass(frozen=True)
class EvaluateReport:
    """Seconds of one draw at one noise scale, from `draws` of them."""

    seconds: float
    draws: int
