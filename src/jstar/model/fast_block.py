"""The block of a small network in C, forward and backward: block.c as a function of torch."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jstar.model.block import Block
from jstar.model.ladder import DiTConfig
from jstar.native import address, load

SOURCE = Path(__file__).with_name("block.c")
FLAGS = ("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
WIDE = ("-mprefer-vector-width=512",)
MAX_TOKENS = 64  # block.c says the same
STEPS = (8, 4)  # the numbers of floats that block.c can be compiled for
SURE_WIDTH = 96  # up to here at least 1.1 times as fast as torch (benchmarks/train_block.py)
SLICE = 32  # images whose weight gradients are summed together; fixed, so that sums are too

DIMENSIONS = ("tokens", "width", "heads")
INPUTS = ("x", "modulation", "qkv_w", "proj_w", "up_w", "down_w", "qk_scale")
KEPT = ("unit", "inverse", "weights", "mixed", "branch1", "middle", "hidden", "branch2")
GRADIENTS = ("d_out", "d_x", "d_modulation")
WEIGHT_GRADIENTS = ("d_qkv", "d_proj", "d_up", "d_down", "d_qk_scale")


class _Block(ctypes.Structure):
    """struct block of block.c."""

    _fields_ = [(name, ctypes.c_int64) for name in DIMENSIONS] + [
        (name, ctypes.c_void_p)
        for name in (*INPUTS, *KEPT, "out", *GRADIENTS, *WEIGHT_GRADIENTS)
    ]  # fmt: skip


class FastBlock(Block):
    """A block that computes its equation in C if it is to (`in_c`) and can.

    Whoever builds a network for a run says which (`jstar.model.block_choice`); else the width does.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        self.in_c = config.width <= SURE_WIDTH

    def forward(self, x_BTE: Tensor, condition_BE: Tensor) -> Tensor:
        """See `Block.forward`."""
        if self.classic or not self.in_c or not c_block_takes(x_BTE, self.heads):
            return super().forward(x_BTE, condition_BE)
        weights = (*(f.weight for f in (self.qkv, self.proj, self.up, self.down)), self.qk_scale)
        return c_block(x_BTE, self.modulation(condition_BE), weights, self.heads)


@cache
def block_kernel(step: int = STEPS[0]) -> Any:
    """The compiled block, or None: no AVX2, no compiler, it failed, or JSTAR_NATIVE=0.

    step: one of STEPS that divides the width of a head.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    flags = (f"-DSTEP={step}", *FLAGS)
    return load(SOURCE, (*flags, *WIDE), flags)


def head_step(width: int, heads: int) -> int | None:
    """The largest of STEPS that divides the width of a head; None: C has no such block."""
    return next((step for step in STEPS if width % (heads * step) == 0), None)


def c_block_takes(x_BTE: Tensor, heads: int) -> bool:
    """Whether `c_block` can take this input."""
    step = head_step(x_BTE.shape[2], heads)
    return (
        type(x_BTE) is Tensor  # not one without data, of the plan
        and x_BTE.device.type == "cpu"
        and x_BTE.dtype == torch.float32
        and x_BTE.shape[1] <= MAX_TOKENS
        and step is not None
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and block_kernel(step) is not None
    )


def c_block(x_BTE: Tensor, modulation: Tensor, weights: tuple[Tensor, ...], heads: int) -> Tensor:
    """[B, T, E], its modulation [B, 6 E], weights of qkv, proj, up, down and qk_scale -> [B, T, E].

    Only where `c_block_takes` them. Equations: `jstar.model.block.Block`.
    """
    tensors = (x_BTE, modulation, *weights)
    if not torch.is_grad_enabled():  # then nothing is kept for a backward pass
        tensors = tuple(tensor.detach() for tensor in tensors)
    out_BTE: Tensor = NativeBlock.apply(*tensors, heads)  # type: ignore[no-untyped-call]
    return out_BTE


class NativeBlock(torch.autograd.Function):
    """See `c_block`."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, heads = args
        inputs = [tensor.contiguous() for tensor in tensors]
        x, (B, T, E) = inputs[0], inputs[0].shape
        keep = any(ctx.needs_input_grad)
        slices = _slices(B)
        images = B if keep else max(1, MAX_TOKENS // T) * len(slices)
        kept = _kept(images, T, E, heads)
        out = torch.empty_like(x)
        call, kernel = _block(x.shape, heads), block_kernel(head_step(E, heads))
        _place(call, (*INPUTS, *KEPT, "out"), (*inputs, *kept, out))
        panels = _packed(kernel, call, x, backward=False)

        def work(number: int, first: int, stop: int) -> int:
            mine = _Block.from_buffer_copy(call)
            if not keep:  # every slice has its own room
                _place(mine, KEPT, kept, number * images // len(slices))
            return int(kernel.jstar_block_forward(
                ctypes.byref(mine), ctypes.c_int64(first), ctypes.c_int64(stop), ctypes.c_int(keep)
            ))  # fmt: skip

        _run(work, slices)
        del panels
        ctx.save_for_backward(*inputs, *(kept if keep else []))
        ctx.heads = heads
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: recomputed blocks allow no second time
        inputs, kept = saved[: len(INPUTS)], saved[len(INPUTS) :]
        x, (B, _, E) = inputs[0], inputs[0].shape
        slices = _slices(B)
        d_out = d_out.contiguous()
        d_x, d_modulation = torch.empty_like(x), torch.empty_like(inputs[1])
        sums = [weight.new_empty(len(slices), *weight.shape) for weight in inputs[2:]]
        call, kernel = _block(x.shape, ctx.heads), block_kernel(head_step(E, ctx.heads))
        _place(call, (*INPUTS, *KEPT, *GRADIENTS), (*inputs, *kept, d_out, d_x, d_modulation))
        panels = _packed(kernel, call, x, backward=True)

        def work(number: int, first: int, stop: int) -> int:
            mine = _Block.from_buffer_copy(call)
            _place(mine, WEIGHT_GRADIENTS, sums, number)
            return int(kernel.jstar_block_backward(
                ctypes.byref(mine), ctypes.c_int64(first), ctypes.c_int64(stop)
            ))  # fmt: skip

        _run(work, slices)
        del panels
        return d_x, d_modulation, *(part.sum(0) for part in sums), None


def _packed(kernel: Any, call: _Block, x: Tensor, *, backward: bool) -> Tensor:
    """Give `call` the weights as the products of a pass read them; keep what is returned alive."""
    room = x.new_empty(12 * call.width**2)
    kernel.jstar_block_pack(ctypes.byref(call), ctypes.c_int(backward), address(room))
    return room


def _kept(images: int, T: int, E: int, heads: int) -> list[Tensor]:
    """Room for what the forward pass of so many images keeps, in the order of KEPT."""
    padded = -(-T // 8) * 8
    sizes = (T * 3 * E, T * 2 * heads, heads * T * padded, T * E, T * E, T * E, T * 4 * E, T * E)
    return [torch.empty(images, size) for size in sizes]


def _block(shape: torch.Size, heads: int) -> _Block:
    return _Block(tokens=shape[1], width=shape[2], heads=heads)


def _place(call: _Block, names: tuple[str, ...], tensors: Any, row: int = 0) -> None:
    for name, tensor in zip(names, tensors, strict=True):
        setattr(call, name, address(tensor, row))


def _slices(images: int) -> list[tuple[int, int]]:
    return [(a, min(a + SLICE, images)) for a in range(0, images, SLICE)]


def _run(work: Callable[[int, int, int], int], slices: list[tuple[int, int]]) -> None:
    """work(number, first, stop) for every slice on torch's number of threads.

    ctypes releases the interpreter lock, so plain threads do.
    """
    threads = min(torch.get_num_threads(), len(slices))
    jobs = [(k, *ends) for k, ends in enumerate(slices)]
    if threads > 1:
        failed = sum(_pool(threads).map(lambda job: work(*job), jobs))
    else:
        failed = sum(work(*job) for job in jobs)
    if failed:
        raise MemoryError("no memory for the buffers of a block")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "jstar-block")
