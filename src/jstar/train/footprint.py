"""What a run keeps in each GPU's memory, and how it is cut up so that this fits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch

from jstar.config import TrainConfig
from jstar.config.base import AUTO
from jstar.errors import JstarError
from jstar.hardware import GIB, RESERVED_BYTES
from jstar.model import DiTConfig, parameters
from jstar.train.parallel import Ranks
from jstar.train.trace import StepCost, TracedStep

MARGIN = 1.05  # for what a count cannot see: the allocator's holes
RESIDENT_SHARE = 0.25  # of a GPU's memory: images that take more are not kept there unasked
FEWEST = 8  # images of a microbatch; below, matrix products become slow: the last resort
PREPARED = 6  # arrays of a chunk's inputs at once while they are made
MORE = (2, 4, 8, 16, 32)  # times as many processes, tried in an advice


@dataclass(frozen=True)
class Cut:
    """How a run is cut up to fit: what `auto` in the study stands for."""

    microbatch: int
    recompute: bool
    shard: bool
    resident: bool

    def words(self, share: int) -> str:
        """As the plan prints it; `share` is a process' part of the batch."""
        parts = -(-share // self.microbatch)
        text = f"{parts} x {self.microbatch}" if parts > 1 else str(share)
        return ", ".join(
            [text, "fsdp" if self.shard else "ddp", *(["recompute"] if self.recompute else [])]
        )


@dataclass(frozen=True)
class Footprint:
    """Bytes in the memory of one GPU."""

    weights: float
    gradients: float
    moments: float
    averages: float
    gathered: float  # what FSDP unites for the blocks at work
    saved: float  # activations kept for the backward pass
    workspace: float  # what else lives at the fullest moment
    inputs: float  # of a chunk
    images: float

    @property
    def state(self) -> float:
        """What is there all the time."""
        return self.weights + self.gradients + self.moments + self.averages

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(vars(self).values()))


@dataclass(frozen=True)
class Load:
    """One size, as far as its memory goes, trained by `world` processes.

    image_bytes: of the whole dataset as it is stored. chunk_bytes: of a chunk's images on a process
    in float32.
    """

    name: str
    shape: DiTConfig
    config: TrainConfig
    world: int
    image_bytes: float
    chunk_bytes: float

    @property
    def share(self) -> int:
        """Images of a step that one process trains."""
        return max(1, self.config.batch // self.world)

    def footprint(self, cut: Cut) -> Footprint:
        """Bytes on a GPU. Gradients that are accumulated are whole on every GPU also under FSDP."""
        bytes_each = 4.0 * parameters(self.shape)
        part = bytes_each / self.world if cut.shard else bytes_each
        accumulated = cut.microbatch < self.share
        block = 4.0 * _block_parameters(self.shape)
        cost = self.cost(cut)
        return Footprint(
            weights=part,
            gradients=bytes_each if accumulated else part,
            moments=2 * part,
            averages=len(self.config.ema) * part,
            # Two blocks' weights (this one's, the next one's) and their gradients, in float32.
            gathered=4 * block if cut.shard else 0.0,
            saved=cost.saved,
            workspace=cost.peak - cost.saved,
            inputs=PREPARED * self.chunk_bytes,
            images=self.image_bytes if cut.resident else 0.0,
        )

    def cost(self, cut: Cut) -> StepCost:
        """Of one microbatch."""
        step = TracedStep(
            self.shape, self.config.make_process().learned_weight, self.config.precision == "bf16",
            self.config.compile, cut.recompute,
        )  # fmt: skip
        return _costs(step)(cut.microbatch)

    def cuts(self, memory: float) -> Iterator[Cut]:
        """All cuts that the configuration allows, those that cost least first."""
        config = self.config
        ways = [(False, False), (True, False), (False, True), (True, True)]  # shard, recompute
        resident = [config.resident is True]
        if config.resident == AUTO and self.image_bytes <= RESIDENT_SHARE * memory:
            resident = [True, False]
        allowed = [
            (shard, recompute)
            for shard, recompute in ways
            if config.parallel in (AUTO, "fsdp" if shard else "ddp")
            and config.activation_checkpointing in (AUTO, recompute)
            and (self.world > 1 or not shard or config.parallel == "fsdp")
        ]
        for few in (False, True):
            for shard, recompute in allowed:
                for size in self._microbatches(few):
                    for keep in resident:
                        yield Cut(size, recompute, shard and self.world > 1, keep)

    def _microbatches(self, few: bool) -> list[int]:
        if self.config.microbatch != AUTO:
            return [min(int(self.config.microbatch), self.share)]
        sizes = {-(-self.share // parts) for parts in range(1, self.share + 1)}
        least = min(FEWEST, self.share)
        return sorted((s for s in sizes if (s < least) == few), reverse=True)

    def free(self) -> "Load":
        """The same with everything left to choose."""
        chosen = {"microbatch": AUTO, "activation_checkpointing": AUTO, "parallel": AUTO}
        config = self.config.model_copy(update={**chosen, "resident": AUTO})
        return replace(self, config=config)


def choose_cut(load: Load, memory: float, usable: float) -> tuple[Cut, Footprint]:
    """The cut that costs least and fits into a GPU of `memory` bytes, `usable` of them for tensors.

    Raises JstarError where none does: the sentence says what would.
    """
    found = find_cut(load, memory, usable)
    if found is not None:
        return found
    raise JstarError(misfit_words(load, memory, usable))


def find_cut(load: Load, memory: float, usable: float) -> tuple[Cut, Footprint] | None:
    """As `choose_cut`, None where none fits."""
    for cut in load.cuts(memory):
        needed = load.footprint(cut)
        if MARGIN * needed.total <= usable:
            return cut, needed
    return None


def cut_here(load: Load, ranks: Ranks) -> Cut:
    """What `auto` stands for on the devices at hand: on a CPU one pass, nothing recomputed.

    The same for all ranks, and for the same kind of GPU. Where nothing seems to fit the leanest cut
    is tried: the count is made with a margin.
    """
    if ranks.device.type != "cuda":
        fits = load.config.model_copy(update={"resident": False})
        return next(replace(load, config=fits).cuts(0.0))
    here = float(torch.cuda.get_device_properties(ranks.device).total_memory)
    least = torch.tensor(-here, dtype=torch.float64, device=ranks.device)
    memory = -float(ranks.max(least))
    found = find_cut(load, memory, memory - RESERVED_BYTES)
    return found[0] if found is not None else list(load.cuts(memory))[-1]


def misfit_words(load: Load, memory: float, usable: float) -> str:
    """What a size that does not fit needs at least, and what would make it fit."""
    cuts = list(load.cuts(memory))
    least = min((load.footprint(cut) for cut in cuts), key=lambda needed: needed.total)
    head = (
        f"{load.name} needs {MARGIN * least.total / GIB:.1f} GiB on each of {load.world} GPUs, of "
        f"which {usable / GIB:.1f} GiB are usable"
    )
    free = find_cut(load.free(), memory, usable)
    if free is not None:
        cut, needed = free
        return f"{head}; {_keys(cut, load.config)} would fit, {_gib(needed)}"
    for times in MORE:
        wider = replace(load.free(), world=times * load.world, chunk_bytes=load.chunk_bytes / times)
        found = find_cut(wider, memory, usable)
        if found is not None and load.config.batch % wider.world == 0:
            cut, needed = found
            return f"{head}; {wider.world} GPUs would do, with {_keys(cut)}, {_gib(needed)}"
    return f"{head}; no more GPUs of this kind would do: a smaller size, or GPUs with more memory"


def _gib(needed: Footprint) -> str:
    return f"{MARGIN * needed.total / GIB:.1f} GiB"


def _keys(cut: Cut, given: TrainConfig | None = None) -> str:
    """The study's keys that say this cut; only those that differ from what is given."""
    named = {
        "microbatch": cut.microbatch, "activation_checkpointing": cut.recompute,
        "parallel": "fsdp" if cut.shard else "ddp", "resident": cut.resident,
    }  # fmt: skip
    kept = {k: v for k, v in named.items() if given is None or getattr(given, k) not in (AUTO, v)}
    return ", ".join(f"train.{k}: {str(v).lower()}" for k, v in kept.items())


@cache
def _block_parameters(shape: DiTConfig) -> int:
    return parameters(replace(shape, depth=2)) - parameters(replace(shape, depth=1))


_costs = cache(TracedStep.costs)
