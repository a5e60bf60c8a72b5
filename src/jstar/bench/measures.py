"""What `jstar bench` measures: ratios, which travel between machines, and a few rates."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.application import DEFAULT_STUDY, study_file
from jstar.config import Study
from jstar.data import prepare
from jstar.model import ladder
from jstar.model.fast_network import network_kernel
from jstar.model.network_choice import choose_network, network_passes
from jstar.optimal import optimal_loss
from jstar.optimal.exact.distances import choose_precision, has_int8_units
from jstar.optimal.exact.products import products_kernel
from jstar.optimal.points import TILE, as_points
from jstar.probe import times_as_fast
from jstar.train.loop import run_chunk
from jstar.train.memory import keep_freed_memory
from jstar.train.parallel import Ranks
from jstar.train.run import Run

ROUNDS = 3
SIDE = 1024  # of the matrices of the product that is timed
SIGMAS = np.geomspace(0.02, 80, 32)
DRAWS_A_SECOND, POINTS_A_DRAW = 300, 20  # of J*: 50,000 x 2,000 draws would be CIFAR-10's
BLOCKS = (16, 48, 96, 128, 192, 256)  # widths
TOKENS_SIDE, BATCH = 32, 32  # 64 tokens an image, in patches of 4
FIT = (
    "import gc, os; from jstar.__main__ import COLLECT_EVERY; gc.set_threshold(COLLECT_EVERY); "
    "import jstar.cli, jstar.config, jstar.manifest, jstar.scaling.stage, jstar.scaling.summary; "
    "os._exit(0)"
)


@dataclass(frozen=True)
class Measure:
    """A line of the table; `used`: what jstar does here where it has a choice."""

    what: str
    value: float
    unit: str
    used: str = ""


def measure_all(seconds: float, say: Callable[[str], None]) -> list[Measure]:
    """Every line, each measured for about so many seconds; `say` is told what comes next.

    Everything but the product on all threads runs on one thread, by its processor time.
    """
    threads, found = torch.get_num_threads(), list[Measure]()
    keep_freed_memory()  # as training does
    parts: tuple[tuple[str, Callable[[float], Iterator[Measure]]], ...] = (
        ("matrix product", lambda limit: _products(limit, threads)),
        ("J*", _optimal),
        ("networks in C and in torch", _networks),
        (f"training of the study {DEFAULT_STUDY}", _training),
        ("start of commands", _commands),
    )
    try:
        for name, part in parts:
            say(name)
            torch.set_num_threads(1)
            found += part(seconds)
    finally:
        torch.set_num_threads(threads)
    return found


def _products(seconds: float, threads: int) -> Iterator[Measure]:
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        clock = time.process_time if count == 1 else time.perf_counter
        rate = 2 * SIDE**3 / _least(lambda: a @ b, seconds, clock)
        name = "1 thread" if count == 1 else "all threads, by the clock"
        yield Measure(f"fp32 matrix product, {name}", rate / 1e9, "GFLOP/s")


def _least(work: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Seconds of the quickest of the calls that fit into `seconds`."""
    work()
    spent, end = list[float](), time.perf_counter() + seconds
    while len(spent) < ROUNDS or time.perf_counter() < end:
        start = clock()
        work()
        spent.append(clock() - start)
    return min(spent)


def synthetic_images(count: int) -> NDArray[np.uint8]:
    """Images [N, 3, 32, 32] that differ in brightness, coarse shapes and noise; fixed seed."""
    draw = np.random.default_rng(0)
    coarse = draw.normal(128, 40, (count, 3, 4, 4)) + draw.normal(0, 40, (count, 1, 1, 1))
    images = coarse.astype(np.float32).repeat(8, axis=2).repeat(8, axis=3)
    images += draw.standard_normal(images.shape, dtype=np.float32) * 10
    return images.clip(0, 255).astype(np.uint8)


def _optimal(seconds: float) -> Iterator[Measure]:
    draws = max(64, int(DRAWS_A_SECOND * seconds))
    images = synthetic_images(POINTS_A_DRAW * draws)
    flat = torch.from_numpy(images.reshape(len(images), -1))
    factors = torch.randn((2, draws, flat.shape[1]))

    def two_products() -> None:
        for tile in torch.split(flat, TILE):
            points = tile.float()
            _ = factors[0] @ points.t(), factors[1] @ points.t()

    optimal_loss(images[:512], SIGMAS, queries=64)  # compiles the kernel
    ratios = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        optimal_loss(images, SIGMAS, queries=draws)
        middle = time.process_time()
        two_products()
        ratios.append((middle - begun) / (time.process_time() - middle))
    precision = choose_precision("auto", as_points(images), torch.device("cpu"))
    by = "by products.c" if products_kernel() is not None and not has_int8_units() else "by torch"
    value = statistics.median(ratios)
    what = f"J*, {len(images):,} images of 32 x 32 x 3, 32 noise scales, over two fp32 products"
    yield Measure(what, value, "times", f"{precision} {by}")


def _networks(seconds: float) -> Iterator[Measure]:
    for width in BLOCKS:
        config = ladder(
            1, shape=(3, TOKENS_SIDE, TOKENS_SIDE), width=width, head_width=16 if width % 64 else 64
        )
        what = f"network of one block of width {width}, forward and backward, torch over C"
        used, value = choose_network(config, BATCH).way, float("nan")
        if network_kernel() is not None:
            (_, in_c), (_, in_torch) = network_passes(config, BATCH)
            value = times_as_fast(in_c, in_torch, seconds / 2)
        yield Measure(what, value, "times", used)


def _training(seconds: float) -> Iterator[Measure]:
    study = Study.load(study_file(DEFAULT_STUDY))
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        prepare(study.dataset, data)
        for entry in (study.ladder[k] for k in (0, len(study.ladder) // 2, -1)):
            run = Run(study, entry.name, 0, data, Path(name), Ranks(0, 1, torch.device("cpu")))
            run.choose_network()
            step = min(run.events.chunk_steps, run.events.steps // (ROUNDS + 2))
            run_chunk(run, step)
            rates, end = list[float](), time.perf_counter() + seconds
            while run.step + step <= run.events.steps and (
                len(rates) < ROUNDS or time.perf_counter() < end
            ):
                begun = time.process_time()
                run_chunk(run, run.step + step)
                rates.append(step * run.config.batch / (time.process_time() - begun))
            what = f"training of {entry.name}, width {run.shape.width}"
            yield Measure(what, statistics.median(rates), "images/s", run.way)


def _commands(seconds: float) -> Iterator[Measure]:
    for name, words in (("jstar --help", ["-m", "jstar", "--help"]), ("jstar fit", ["-c", FIT])):
        spent = []
        for _ in range(ROUNDS if seconds >= 1 else 1):
            begun = _children()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            spent.append(_children() - begun)
        yield Measure(f"{name}, until it works", statistics.median(spent), "s")


def _children() -> float:
    """Processor time of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
