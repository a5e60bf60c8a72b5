"""What a step asks of a device, counted on tensors that hold no data: bytes kept, FLOPs, traffic.

The very objective that is trained runs on fake tensors. torch.compile'd blocks are cut by the same
partitioner as on the device, but their graphs are run as they are instead of being turned into
kernels; what the kernels would move is counted as if all that lies between two matrix products and
does not depend on the second was one kernel each.
"""

import importlib
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jstar.model import DiT, DiTConfig
from jstar.train.objective import Objective

TRACED = (16, 32)  # images of the microbatches that all others are drawn a line through


@dataclass(frozen=True)
class StepCost:
    """Forward and backward pass of one microbatch. All are affine in its size and in the depth.

    saved: bytes kept from the forward for the backward pass, weights and inputs left out
    peak: bytes alive at once besides weights, inputs and the weights' gradients, unfused
    matrix, attention: FLOPs done, recomputed ones included
    moved: bytes that all other kernels read and write
    """

    saved: float
    peak: float
    matrix: float
    attention: float
    moved: float

    def towards(self, other: "StepCost", share: float) -> "StepCost":
        """The point at `share` of the line from this one to `other`."""
        pairs = {k: (v, getattr(other, k)) for k, v in vars(self).items()}
        return StepCost(**{k: a + share * (b - a) for k, (a, b) in pairs.items()})


@dataclass(frozen=True)
class TracedStep:
    """How a network is trained, as far as its memory and time depend on it."""

    shape: DiTConfig
    learned_weight: bool
    bf16: bool
    compiled: bool
    recompute: bool

    def cost(self, images: int) -> StepCost:
        """Of a microbatch, from networks of one and two blocks: each further one costs the same."""
        one, two = _trace(self, images, depths=(1, 2))
        return one.towards(two, self.shape.depth - 1)

    def costs(self) -> Callable[[int], StepCost]:
        """The cost of any microbatch, from two of them."""
        few, many = TRACED
        low, high = self.cost(few), self.cost(many)
        return lambda images: low.towards(high, (images - few) / (many - few))


def load_compiler() -> None:
    """Load what tracing of compiled blocks needs: once, before processes are forked for it."""
    importlib.import_module("torch._dynamo.backends.common")
    importlib.import_module("torch._inductor.decomposition")


def count_saved(objective: nn.Module, inputs: Sequence[Tensor | None], bf16: bool) -> int:
    """Bytes that autograd keeps of one forward pass of an objective, real or fake; runs both ways.

    inputs: those of `Objective.forward`. A storage counts once; weights and inputs do not.
    """
    given = [*objective.parameters(), *objective.buffers(), *inputs]
    known = {t.untyped_storage()._cdata for t in given if t is not None}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with _autocast(bf16):
            loss, _ = objective(*inputs)
        found = sum(storage.nbytes() for storage in kept.values())
        loss.backward()
    return found


def step_inputs(shape: DiTConfig, images: int) -> list[Tensor | None]:
    """Inputs of `Objective.forward`, of the current device or mode."""
    x = torch.zeros(images, shape.channels, shape.rows, shape.columns)
    labels = torch.zeros(images, dtype=torch.long) if shape.classes else None
    return [x, torch.ones(images), labels, torch.zeros_like(x), torch.ones(images)]


def _trace(step: TracedStep, images: int, depths: Sequence[int]) -> list[StepCost]:
    """The cost at each depth. A compiler sees the block once."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    if step.compiled:  # sizes share the block's code: a compiler gives up after eight of them
        torch._dynamo.reset()
    counter, found = _Counter(), []
    backend = _backend(counter) if step.compiled else None
    with FakeTensorMode(allow_non_fake_inputs=True):
        for depth in depths:
            network = DiT(replace(step.shape, depth=depth))
            network.recompute = step.recompute
            if step.compiled:
                for block in network.blocks:
                    block.compile(backend=backend, dynamic=False, fullgraph=True)
            found.append(_count(Objective(network, step.learned_weight), step, images, counter))
    if step.compiled:
        torch._dynamo.reset()
    return found


def _count(
    objective: Objective, step: TracedStep, images: int, counter: "_Counter"
) -> StepCost:  # fmt: skip
    inputs = step_inputs(step.shape, images)
    # The first pass compiles: no compiler works while operations are counted.
    saved = count_saved(objective, inputs, step.bf16)
    counter.reset()
    with counter:  # the gradients are there from the first pass: they are added to
        with _autocast(step.bf16):
            loss, _ = objective(*inputs)
        loss.backward()
    counter.counting = False
    return StepCost(saved, counter.peak, counter.matrix, counter.attention, counter.moved)


def _autocast(bf16: bool) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts FLOPs, traffic and bytes alive of all operations; of compiled blocks in their way."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = False  # a compiled graph, which is counted as a whole
        self.turn = 0
        self.reset()
        self.counting = False

    def reset(self) -> None:
        """Begin to count."""
        self.matrix = self.attention = self.moved = 0.0
        self.live = self.peak = 0
        self.known: set[int] = set()
        self.turn += 1
        self.counting = True

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Compiled blocks refuse to run under other modes."""
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        for tensor in made:
            self._born(tensor)
        if not self.inside:
            self.add(func, args, kwargs or {}, out)
        return out

    def add(self, func: Any, args: Any, kwargs: Any, out: Any) -> bool:
        """Count one operation that is a kernel by itself; False for a view or an allocation."""
        work = kernel_flops(func, args, kwargs, out)
        if work is not None:
            self.matrix += work[0]
            self.attention += work[1]
            return True
        if is_free(func):
            return False
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        self.moved += sum({id(t): t.nbytes for t in tensors}.values())
        return True

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._died, self.turn, key, size)

    def _died(self, turn: int, key: int, size: int) -> None:
        if turn == self.turn:  # not what an earlier count left behind
            self.known.discard(key)
            self.live -= size


def is_free(func: Any) -> bool:
    """Whether an operation moves nothing: views, and memory that is only taken."""
    name = str(func)
    return bool(getattr(func, "is_view", False)) or any(
        word in name for word in (".empty", "new_empty", "_unsafe_view", "_reshape_alias")
    )


def kernel_flops(func: Any, args: Any, kwargs: Any, out: Any) -> tuple[float, float] | None:
    """(matrix products, attention), None for other operations. 2 per multiply-add."""
    from torch.utils.flop_counter import flop_registry

    name = str(func)
    if "scaled_dot_product" in name or "flash_attention" in name:
        backward = "backward" in name
        B, H, T, E = (args[1] if backward else args[0]).shape
        return 0.0, (10.0 if backward else 4.0) * B * H * T * T * E  # backward: five products
    packet = getattr(func, "_overloadpacket", None)
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=out)), 0.0
    return None


def _backend(counter: _Counter) -> Any:
    """torch.compile's way to two graphs a block, and no further."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    from jstar.train.fusion import GraphCost

    def compiler(graph: torch.fx.GraphModule, _: Any) -> Any:
        cost = GraphCost.of(graph)

        def run(*args: Any) -> Any:
            if counter.counting:
                counter.matrix += cost.matrix
                counter.attention += cost.attention
                counter.moved += cost.moved
            counter.inside = True
            try:
                return graph(*args)
            finally:
                counter.inside = False

        return make_boxed_func(run)

    return aot_autograd(
        fw_compiler=compiler, bw_compiler=compiler, decompositions=select_decomp_table(),
        partition_fn=min_cut_rematerialization_partition,
    )  # fmt: skip
