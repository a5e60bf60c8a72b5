"""What each way of training a step would gain on eight H100: python benchmarks/train_graphs.py.

Nothing here is measured: FLOPs, bytes and graphs are counted on a CPU from what torch compiles, and
milliseconds follow by the roofline of `jstar plan` (src/jstar/preflight/roofline.py). Three sizes
of config/imagenet64.yaml, at its precision and batch. Writes train_graphs.csv: a row for each size
and way, in each one thing changed against `base`, all of a process' share at once under DDP; and
train_chunks.csv: what a process does between two waits for its device. docs/speed.md reads both.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch._dynamo.backends.distributed import DDPOptimizer
from torch._functorch import config as functorch

from jstar.config import Study
from jstar.data import open_dataset
from jstar.data.check import source_shape
from jstar.hardware import GIB, Gpu, find_gpu
from jstar.model import DiTConfig, block, flops, model_config, parameters
from jstar.model.block import Block
from jstar.preflight.forecast import image_bytes
from jstar.preflight.roofline import Machine, mfu, step_time
from jstar.records import provenance, write_table
from jstar.rehearse import images as rehearsal_images
from jstar.rehearse.images import random_images
from jstar.train.events import run_events
from jstar.train.footprint import MARGIN, Cut, Load, choose_cut
from jstar.train.noise_law import TrainingNoiseLaw
from jstar.train.stream import Stream
from jstar.train.trace import StepCost, TracedStep, _Counter

ROOT = Path(__file__).resolve().parents[1]
SIZES = ("dit-120m", "dit-367m", "dit-1.5b")
BUCKET = 25 * 2**20  # bytes: DDP's default
TILE = 128  # of a matrix product on the device, along rows and columns of what it makes
NEAR = 0.02  # of the parameters
STEPS = 4  # of the chunk whose bytes are counted


@dataclass(frozen=True)
class Way:
    """One way to train a step; `inside` holds while it is counted."""

    load: Load
    cut: Cut
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext


class Counted(Load):
    """A load that counts again where a way changes what the network or the compiler does."""

    def cost(self, cut: Cut) -> StepCost:
        """As `Load.cost`."""
        c = self.config
        weight = c.make_process().learned_weight
        step = TracedStep(self.shape, weight, c.precision == "bf16", c.compile, cut.recompute)
        return step_cost(step, cut.microbatch, functorch.activation_memory_budget, block.norm)


@cache
def step_cost(step: TracedStep, images: int, *_: object) -> StepCost:
    """Counted at that very microbatch, and remembered by what a way may change, too."""
    return step.cost(images)


@contextmanager
def norms_cast() -> Iterator[None]:
    """q and k as CUDA's autocast hands them on: normed in float32, and left so."""
    plain = block.norm

    def cast(x: Tensor, classic: bool) -> Tensor:
        return plain(x.float(), classic)

    block.norm = cast
    try:
        yield
    finally:
        block.norm = plain


def budget(share: float) -> Callable[[], AbstractContextManager[Any]]:
    """The compiler may keep this share of the activations, and recomputes what is cheapest."""
    return lambda: functorch.patch(activation_memory_budget=share)


def ways(load: Counted, gpu: Gpu) -> Iterator[tuple[str, Way]]:
    """Name and way: one thing changed in each but the first."""
    share = load.share
    plain = Cut(share, recompute=False, shard=False, resident=False)
    eager = load.config.model_copy(update={"compile": False})
    yield "base", Way(load, plain)
    yield "blocks not compiled", Way(replace(load, config=eager), plain)
    yield "norms of q and k within autocast", Way(load, plain, norms_cast)
    yield "the same, not compiled", Way(replace(load, config=eager), plain, norms_cast)
    yield "half of the activations kept", Way(load, plain, budget(0.5))
    yield "whole blocks recomputed", Way(load, replace(plain, recompute=True))
    yield "two microbatches", Way(load, replace(plain, microbatch=share // 2))
    yield "weights, optimiser and averages sharded", Way(load, replace(plain, shard=True))
    yield "as jstar plan cuts it", Way(load, choose_cut(load, gpu.memory, gpu.usable)[0])


def counted(way: Way, gpu: Gpu) -> dict[str, Any]:
    """One row."""
    machine = Machine.of(gpu, bf16=way.load.config.precision == "bf16")
    with way.inside():
        cost, time = way.load.cost(way.cut), step_time(way.load, way.cut, machine)
        needed, share = way.load.footprint(way.cut), mfu(way.load, way.cut, machine)
    passes = way.load.share / way.cut.microbatch
    milliseconds = {f"{k}_ms": 1e3 * v for k, v in vars(time).items()}
    return {
        "cut": way.cut.words(way.load.share), "saved_gib": cost.saved / GIB,
        "gpu_gib": MARGIN * needed.total / GIB,
        "fits": MARGIN * needed.total <= gpu.usable, "matrix_tflop": passes * cost.matrix / 1e12,
        "moved_gb": passes * cost.moved / 1e9, **milliseconds, "step_ms": 1e3 * time.total,
        "mfu": share,
    }  # fmt: skip


def graphs(shape: DiTConfig, bucket: int | None) -> int:
    """Graphs of a compiled block, where torch's DDPOptimizer cuts them (None: where not)."""
    found: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        found.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    one = Block(shape)
    with torch.no_grad():
        for weight in one.parameters():
            weight.zero_()
    compiler = backend if bucket is None else DDPOptimizer(bucket, backend).compile_fn
    one.compile(backend=compiler, dynamic=False, fullgraph=True)
    one(torch.zeros(1, 2, shape.width), torch.zeros(1, shape.width)).sum().backward()
    torch._dynamo.reset()
    return len(found)


def tile_waste(shape: DiTConfig) -> float:
    """Share of a block's products that whole tiles of 128 columns would compute beside them."""
    E = shape.width
    forward = [(3 * E, E), (E, E), (4 * E, E), (E, 4 * E)]  # (columns, summed) for each token
    # The gradient of the input has `summed` columns; of the weight, rows and columns of both.
    done = useful = 0.0
    for n, k in forward:
        useful += 3 * n * k
        done += up(n) * k + up(k) * n + up(n) * up(k)
    return 1 - useful / done


def up(number: int) -> int:
    """The next multiple of a tile."""
    return -(-number // TILE) * TILE


def near_shape(shape: DiTConfig) -> DiTConfig:
    """The nearest width that is a multiple of 128 at a depth of parameters within 2 %."""
    wanted, found = parameters(shape), []
    for width in (up(shape.width), shape.width // TILE * TILE):  # of two as near the first
        for depth in range(shape.depth // 2, 2 * shape.depth):
            other = replace(shape, depth=depth, width=width, heads=width // 64)
            if abs(parameters(other) / wanted - 1) <= NEAR:
                found.append(other)
    return min(found, key=lambda other: abs(other.width - shape.width))


def chunks(study: Study, name: str, shape: DiTConfig, gpu: Gpu, step_ms: float) -> dict[str, Any]:
    """Steps of a chunk, and what preparing its inputs moves."""
    _, *sides = source_shape(study.dataset)
    place, world = (sides[0], sides[1], sides[2]), study.resources.processes
    mine = run_events(study, name, place, world)
    all_ranks = run_events(study, name, place, 1)
    prepared = inputs_bytes(study) * mine.batch / world
    milliseconds = 1e3 * prepared / Machine.of(gpu, bf16=True).memory
    return {
        "size": name, "steps_of_a_chunk": mine.chunk_steps,
        "counted_for_all_ranks": all_ranks.chunk_steps, "prepared_gb_a_step": prepared / 1e9,
        "prepared_ms_a_step": milliseconds, "share_of_a_step": milliseconds / step_ms,
    }  # fmt: skip


def inputs_bytes(study: Study) -> float:
    """Bytes that `Stream.chunk` reads and writes for an image, each operation by itself."""
    rehearsal_images.COUNT = 64
    with tempfile.TemporaryDirectory() as folder:
        random_images(study.dataset, Path(folder), labelled=True)
        dataset = open_dataset(folder, verify=False)
        law = TrainingNoiseLaw(study.train.make_process())
        stream = Stream(dataset, law, 0, batch=16, class_drop=study.model.class_drop)
        counter = _Counter()
        counter.reset()
        with counter:
            stream.chunk(0, STEPS)
    return counter.moved / (16 * STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", default="H100")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "benchmarks")
    options = parser.parse_args()
    gpu = find_gpu(options.gpu)
    assert gpu is not None, options.gpu
    study = Study.load(ROOT / "config" / "imagenet64.yaml")
    _, *sides = source_shape(study.dataset)
    rows, between = [], []
    for name in SIZES:
        shape = model_config(study.model, study.entry(name), (sides[0], sides[1], sides[2]), 1000)
        load = Counted(
            name, shape, study.train_of(name), study.resources.processes, image_bytes(study), 0.0
        )
        found = {way: counted(what, gpu) for way, what in ways(load, gpu)}
        for way, row in found.items():
            rows.append({"size": name, "way": way, "graphs_a_block": graphs_of(way, shape), **row})
        cut = {"graphs_a_block": graphs(shape, BUCKET)}
        rows.append({"size": name, "way": "optimize_ddp left on", **cut})
        other = near_shape(shape)
        row = counted(next(ways(replace(load, shape=other), gpu))[1], gpu)
        rows.append({"size": name, "way": "width a multiple of 128", "graphs_a_block": 1, **row})
        for kind, wide in (("base", shape), ("width a multiple of 128", other)):
            mine = next(r for r in rows if r["size"] == name and r["way"] == kind)
            mine |= {
                "depth": wide.depth, "width": wide.width, "parameters": parameters(wide),
                "tile_waste": tile_waste(wide), "forward_gflop": flops(wide) / 1e9,
            }  # fmt: skip
        between.append(chunks(study, name, shape, gpu, found["base"]["step_ms"]))
        print(pd.DataFrame(rows).query("size == @name").T.to_string(), flush=True)
    command = "python benchmarks/train_graphs.py " + " ".join(sys.argv[1:])
    facts = provenance(command=command.strip(), gpu=gpu.name, torch=torch.__version__,
                       note="computed, nothing of it is measured")  # fmt: skip
    write_table(options.out / "train_graphs.csv", pd.DataFrame(rows), facts)
    write_table(options.out / "train_chunks.csv", pd.DataFrame(between), facts)
    print(pd.DataFrame(between).T.to_string())


def graphs_of(way: str, shape: DiTConfig) -> int:
    """Graphs of a block: none without a compiler."""
    return 0 if "not compiled" in way else graphs(shape, None)


if __name__ == "__main__":
    main()
