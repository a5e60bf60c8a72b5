"""A small network in C, forward and backward: network.c as a function of torch."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jstar.model.ladder import DiTConfig
from jstar.native import address, load

if TYPE_CHECKING:
    from jstar.model.dit import DiT

SOURCE = Path(__file__).with_name("network.c")
FLAGS = ("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
WIDE = ("-mprefer-vector-width=512",)
MAX_TOKENS = 64  # block.h says the same
STEPS = (8, 4)  # the numbers of floats that block.h can be compiled for
SURE_WIDTH = 96  # up to here at least 1.1 times as fast as torch (benchmarks/train_network.py)
LABELS = 10  # where network.c has the labels' weights
NO_MEMORY, NO_LABEL = 1, 2  # what network.c returns
SLICE = 32  # images whose weight gradients are summed together; fixed, so that sums are too

SIZES = ("images", "slice", "rows", "columns", "patch", "channels", "width", "heads", "depth",
         "features", "classes", "buffers")  # fmt: skip
POINTERS = ("x", "sinusoids", "labels", "positions", "weights", "packed", "room", "out", "d_out",
            "d_x", "d_weights")  # fmt: skip


class _Network(ctypes.Structure):
    """struct network of network.c."""

    _fields_ = [(name, ctypes.c_int64) for name in SIZES] + [
        (name, ctypes.c_void_p) for name in POINTERS
    ]


@cache
def network_kernel(step: int = STEPS[0]) -> Any:
    """The compiled network, or None: no AVX2, no compiler, it failed, or JSTAR_NATIVE=0.

    step: one of STEPS that divides the width of a head.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    flags = (f"-DSTEP={step}", *FLAGS)
    kernel = load(SOURCE, (*flags, *WIDE), flags)
    if kernel is not None:
        for name in ("jstar_network_room", "jstar_network_packed"):
            getattr(kernel, name).restype = ctypes.c_int64
    return kernel


def head_step(width: int, heads: int) -> int | None:
    """The largest of STEPS that divides the width of a head; None: C has no such block."""
    return next((step for step in STEPS if width % (heads * step) == 0), None)


def c_network_takes(network: "DiT", x: Tensor, c_noise: Tensor) -> bool:
    """Whether `c_network` can take this input of this network."""
    config, weight = network.config, network.patches.weight
    step = head_step(config.width, config.heads)
    return (
        type(x) is Tensor  # not one without data, of the plan
        and all(type(w) is nn.Parameter for w in network.blocks[0].parameters())  # not FSDP's
        and x.device.type == "cpu" and weight.device.type == "cpu"
        and x.dtype == torch.float32 and weight.dtype == torch.float32
        and x.shape[1:] == (config.channels, config.rows, config.columns)
        and config.tokens <= MAX_TOKENS
        and step is not None
        and not (config.classic or network.recompute or c_noise.requires_grad)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and network_kernel(step) is not None
    )  # fmt: skip


def c_network(
    network: "DiT", x: Tensor, sinusoids_BF: Tensor, labels_B: Tensor | None
) -> Tensor:  # fmt: skip
    """[B, C, H, W], the noise scales' sinusoids, labels [B] if the network has some -> as x.

    Only where `c_network_takes` it. Equations: `jstar.model.DiT`.
    """
    weights, place = _weights(network), network.positions_TE
    if not torch.is_grad_enabled():
        call = _Call(network.config, x, sinusoids_BF, labels_B, place, weights)
        return call.forward(keep=False)
    out: Tensor = NativeNetwork.apply(  # type: ignore[no-untyped-call]
        network.config, x, sinusoids_BF, labels_B, place, *weights
    )
    return out


def _weights(network: Any) -> list[Tensor]:
    """In the order of network.c."""
    ends = (network.patches, network.noise1, network.noise2, network.last_modulation, network.last)
    found = [part for layer in ends for part in (layer.weight, layer.bias)]
    if network.config.classes:
        found.append(network.labels.weight)
    for block in network.blocks:
        layers = (block.qkv, block.proj, block.up, block.down)
        found += [block.modulation.weight, block.modulation.bias]
        found += [*(layer.weight for layer in layers), block.qk_scale]
    return found


class _Call:
    """A batch and a network as network.c wants them."""

    def __init__(
        self, config: DiTConfig, x: Tensor, sinusoids: Tensor, labels: Tensor | None,
        positions: Tensor, weights: list[Tensor],
    ) -> None:  # fmt: skip
        self.x, self.sinusoids = x.contiguous(), sinusoids.contiguous()
        self.labels = None if labels is None else labels.contiguous()
        self.weights = [weight.contiguous() for weight in weights]
        self.kernel = network_kernel(head_step(config.width, config.heads))
        places = [weight.data_ptr() for weight in self.weights]
        if not config.classes:
            places.insert(LABELS, 0)
        self.places = (ctypes.c_void_p * len(places))(*places)
        self.slices = -(-len(x) // SLICE)
        self.call = _Network(
            images=len(x), slice=SLICE, rows=config.rows // config.patch,
            columns=config.columns // config.patch, patch=config.patch, channels=config.channels,
            width=config.width, heads=config.heads, depth=config.depth,
            features=config.time_features, classes=config.classes, buffers=1,
            weights=ctypes.addressof(self.places),
        )  # fmt: skip
        self._place(x=self.x, sinusoids=self.sinusoids, positions=positions)
        if self.labels is not None:
            self._place(labels=self.labels)

    def forward(self, *, keep: bool) -> Tensor:
        """The network's output; `room` is what a backward pass needs, if it is kept."""
        out = torch.empty_like(self.x)
        size = self.kernel.jstar_network_room(ctypes.byref(self.call), ctypes.c_int(keep))
        self.room = torch.empty(self.slices, size)
        self._place(room=self.room, out=out)
        self._pack(backward=False)
        self._run(self.kernel.jstar_network_forward, 0, self.slices, ctypes.c_int(keep))
        return out

    def backward(self, room: Tensor, d_out: Tensor, d_x: Tensor | None) -> list[Tensor]:
        """The gradients of the weights; sets that of x."""
        sizes = [weight.numel() for weight in self.weights]
        # Each slice's are as large as the weights: memory for those that are done at once.
        at_once = min(torch.get_num_threads(), self.slices)
        of_slices = torch.empty(at_once, sum(sizes))
        whole = of_slices[0] if self.slices == 1 else torch.empty(sum(sizes))
        self.call.buffers = at_once
        self._place(room=room, d_out=d_out, d_weights=of_slices)
        if d_x is not None:
            self._place(d_x=d_x)
        self._pack(backward=True)
        for first in range(0, self.slices, at_once):
            stop = min(first + at_once, self.slices)
            self._run(self.kernel.jstar_network_backward, first, stop)
            if self.slices > 1:
                counts = ctypes.c_int64(stop - first), ctypes.c_int64(sum(sizes))
                add = ctypes.c_int(first > 0)
                self.kernel.jstar_network_sum(address(of_slices), *counts, add, address(whole))
        parts = torch.split(whole, sizes)
        return [part.view(w.shape) for part, w in zip(parts, self.weights, strict=True)]

    def _place(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            setattr(self.call, name, address(tensor))

    def _pack(self, *, backward: bool) -> None:
        """Lay the weights as the products of a pass read them."""
        call, way = ctypes.byref(self.call), ctypes.c_int(backward)
        self.packed = torch.empty(self.kernel.jstar_network_packed(call, way))
        if len(self.packed):
            self.kernel.jstar_network_pack(call, way, address(self.packed))
        self._place(packed=self.packed)

    def _run(self, function: Any, first: int, stop: int, *more: Any) -> None:
        """The function for slices [first, stop), on torch's number of threads.

        ctypes releases the interpreter lock, so plain threads do.
        """
        call = ctypes.byref(self.call)

        def do(first: int, stop: int) -> int:
            return int(function(call, ctypes.c_int64(first), ctypes.c_int64(stop), *more))

        threads = min(torch.get_num_threads(), stop - first)
        if threads < 2:
            found = {do(first, stop)}
        else:
            found = set(_pool(threads).map(lambda k: do(k, k + 1), range(first, stop)))
        if NO_MEMORY in found:
            raise MemoryError("no memory for the buffers of a network")
        if NO_LABEL in found:
            raise IndexError(f"a label is not one of 0 to {self.call.classes}")


class NativeNetwork(torch.autograd.Function):
    """See `c_network`."""

    @staticmethod
    def forward(ctx: Any, config: DiTConfig, *args: Any) -> Tensor:
        (x, sinusoids, labels, positions), weights = args[:4], list(args[4:])
        call = _Call(config, x, sinusoids, labels, positions, weights)
        keep = any(ctx.needs_input_grad)
        out = call.forward(keep=keep)
        if keep:
            ctx.save_for_backward(x, sinusoids, labels, positions, call.room, *weights)
            ctx.config = config
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, sinusoids, labels, positions, room, *weights = ctx.saved_tensors  # read once
        call = _Call(ctx.config, x, sinusoids, labels, positions, weights)
        d_x = torch.empty_like(call.x) if ctx.needs_input_grad[1] else None
        gradients = call.backward(room, d_out.contiguous(), d_x)
        return None, d_x, None, None, None, *gradients


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "jstar-network")
