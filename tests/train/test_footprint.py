"""What the plan says of memory is what a real run keeps."""

from dataclasses import replace

import pytest
import torch

from jstar.config import Study
from jstar.errors import JstarError
from jstar.hardware import GIB
from jstar.model import DiT, ladder
from jstar.train.footprint import MARGIN, Cut, Load, choose_cut, find_cut
from jstar.train.objective import Objective
from jstar.train.parallel import Ranks
from jstar.train.run import Run
from jstar.train.trace import TracedStep, count_saved, step_inputs

SIZES = [(2, 128), (3, 192), (5, 256)]  # wider than what the block in C takes


def shape_of(depth, width, **options):
    return ladder(depth, shape=(3, 8, 8), patch=2, width=width, **options)


def real_objective(shape, *, recompute=False):
    network = DiT(shape).initialise(torch.Generator().manual_seed(0))
    network.recompute = recompute
    return Objective(network, learned_weight=True)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("depth", "width"), SIZES)
def test_traced_activations_are_those_that_a_real_pass_keeps(depth, width, bf16):
    shape = shape_of(depth, width, classes=10)
    real = count_saved(real_objective(shape), step_inputs(shape, 12), bf16)
    step = TracedStep(shape, True, bf16, compiled=False, recompute=False)
    assert step.costs()(12).saved == pytest.approx(real, rel=0.01)


def test_recomputed_blocks_keep_their_inputs():
    shape = shape_of(4, 128)
    real = count_saved(real_objective(shape, recompute=True), step_inputs(shape, 8), True)
    step = TracedStep(shape, True, True, compiled=False, recompute=True)
    assert step.cost(8).saved == pytest.approx(real, rel=0.01)
    assert step.cost(8).matrix > 1.3 * replace(step, recompute=False).cost(8).matrix


def graphs_alone(graph, inputs):
    """torch.compile's default way up to the code generator: the graphs are run as they are."""
    from torch._functorch._aot_autograd.utils import make_boxed_func
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, inputs, inner_compile=lambda g, *_, **__: make_boxed_func(g.forward))


@pytest.mark.parametrize("bf16", [False, True])
def test_the_compiler_keeps_what_its_trace_says(bf16):
    """Its decompositions decide what is kept; with generated code it is the same, to the byte."""
    shape = shape_of(3, 128)
    objective = real_objective(shape)
    for block in objective.network.blocks:
        block.compile(dynamic=False, fullgraph=True, backend=graphs_alone)
    real = count_saved(objective, step_inputs(shape, 8), bf16)
    step = TracedStep(shape, True, bf16, compiled=True, recompute=False)
    assert step.cost(8).saved == pytest.approx(real, rel=0.05)


def test_traced_flops_are_those_of_the_shape():
    from jstar.model import flops

    shape = shape_of(3, 128)
    cost = TracedStep(shape, False, False, compiled=True, recompute=False).cost(4)
    # Attention computes its scores once more in the backward pass: 7/6 of 3 x forward.
    scores = 4 * 3 * shape.tokens**2 * shape.width * 4
    assert cost.attention == pytest.approx(3.5 * scores)
    assert cost.matrix + 3 * scores == pytest.approx(3 * flops(shape) * 4, rel=0.02)
    eager = TracedStep(shape, False, False, compiled=False, recompute=False).cost(4)
    assert eager.matrix == pytest.approx(cost.matrix, rel=0.02)
    assert eager.moved > 1.5 * cost.moved > 0  # fused kernels move less


@pytest.mark.parametrize("ema", [[0.1], [0.05, 0.1, 0.2]])
def test_the_state_is_that_of_a_real_run(tiny_study, digits, tmp_path, ema):
    study = Study.parse(tiny_study(train={"ema": ema}))
    run = Run(study, "d2", 0, digits, tmp_path, Ranks(0, 1, torch.device("cpu")))
    parts = sum(part.nbytes for part, _ in run.parts().values())
    gradients = sum(weight.nbytes for weight in run.named.values())
    load = load_of(run.shape, run.config, world=1)
    needed = load.footprint(Cut(64, False, False, True))
    assert needed.state == pytest.approx(parts + gradients, rel=1e-3)
    assert needed.images == load.image_bytes


def load_of(shape, config, world=8):
    return Load("d2", shape, config, world, image_bytes=1e6, chunk_bytes=1e5)


@pytest.fixture
def load(tiny_study):
    study = Study.parse(tiny_study(train={"process": "edm2", "batch": 512}))
    return load_of(shape_of(4, 128), study.train)


def test_the_cut_that_costs_least_and_fits_is_chosen(load):
    roomy, needed = choose_cut(load, 1e12, 1e12)
    assert roomy == Cut(64, recompute=False, shard=False, resident=True)
    lean, _ = choose_cut(load, 1e12, MARGIN * (needed.total - 0.5e6))
    assert lean == replace(roomy, resident=False)  # images leave first
    half, needed = choose_cut(load, 1e12, 0.7 * MARGIN * needed.total)
    assert (half.recompute, half.shard, half.resident) == (False, False, False) or half.resident
    assert 8 <= half.microbatch < 64
    assert MARGIN * needed.total < 0.7 * MARGIN * load.footprint(roomy).total


def test_a_size_that_does_not_fit_says_what_would(load):
    given = {"microbatch": 64, "parallel": "ddp", "activation_checkpointing": False}
    tight = replace(load, config=load.config.model_copy(update=given))
    enough = MARGIN * load.footprint(Cut(16, False, False, False)).total
    with pytest.raises(JstarError, match=r"d2 needs .* would fit") as error:
        choose_cut(tight, 1e12, enough)
    assert "train.microbatch: 16" in str(error.value)
    cut, _ = find_cut(tight.free(), 1e12, enough)
    assert cut.microbatch == 16
    wide = replace(load, world=64, chunk_bytes=load.chunk_bytes / 8)
    enough = MARGIN * wide.footprint(Cut(8, False, True, False)).total
    with pytest.raises(JstarError, match=r"GPUs would do, with .*parallel: fsdp"):
        choose_cut(load, 1e12, enough)
    with pytest.raises(JstarError, match="no more GPUs of this kind would do"):
        choose_cut(load, GIB, 1e3)
