"""One process or many (torchrun): who am I, and the few things ranks tell each other."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jstar.torch_device import default_device
from jstar.train.objective import Objective

if TYPE_CHECKING:  # a second to import, for what one process never has
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all of a run."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    @property
    def kind(self) -> str:
        """Of its device: another rounds otherwise. Of a CPU torch's choice of kernels counts."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} ({torch.backends.cpu.get_cpu_capability()})"

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all ranks."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def max(self, value: Tensor) -> Tensor:
        """Maximum over all ranks."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def rows(self, value: Tensor) -> Tensor:
        """The values of all ranks, [world, ...] in their order."""
        rows = torch.zeros(self.world, *value.shape, dtype=value.dtype, device=value.device)
        rows[self.rank] = value
        return self.sum(rows)

    def gather(self, value: T) -> list[T]:
        """Any small value of all ranks, in their order."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def own(self, rows: Tensor) -> Tensor:
        """This rank's part of a sum over ranks whose terms were `rows`.

        As many ranks as before get their own back, and add up to the same last bit. Of another
        number the first gets the sum, the others zeros.
        """
        if len(rows) == self.world:
            return rows[self.rank]
        return rows.sum(0) if self.first else torch.zeros_like(rows[0])

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()

    def _reduce(self, value: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        value = value.clone()
        if self.world > 1:
            dist.all_reduce(value, how)
        return value


ALONE = Ranks(0, 1, torch.device("cpu"))


# A group's destructor waits for its threads and keeps Python's lock, which one of them may need to
# forget its last work (github.com/pytorch/pytorch/issues/56297): seen with compiled blocks under
# gloo. Groups that were left are kept until the process ends.
_LEFT: list[Any] = []


@contextmanager
def join_ranks(device: str | None, minutes: float = 10) -> Iterator[Ranks]:
    """The ranks that torchrun started (one without it), on `device` or the best there is.

    minutes: how long one may keep the others waiting before the run is given up as hung.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    where = default_device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if world == 1:
        yield Ranks(0, 1, where)
        return
    if where.type == "cuda":
        dist.init_process_group("nccl", device_id=where, timeout=timedelta(minutes=minutes))
    else:
        dist.init_process_group("gloo", timeout=timedelta(minutes=minutes))
    _LEFT.append(dist.group.WORLD)
    try:
        yield Ranks(rank, world, where)
    finally:
        dist.destroy_process_group()


@contextmanager
def deterministic_kernels(asked: bool) -> Iterator[None]:
    """Ask torch for kernels that sum in a fixed order. Raises RuntimeError where there is none.

    https://pytorch.org/docs/stable/notes/randomness.html
    """
    if not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read with the first product
    memory: Any = torch.utils.deterministic
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory,
        cudnn.deterministic, cudnn.benchmark,
    )  # fmt: skip

    def choose(kernels: bool, fill: bool, fixed: bool, search: bool) -> None:
        torch.use_deterministic_algorithms(kernels)
        memory.fill_uninitialized_memory = fill
        cudnn.deterministic, cudnn.benchmark = fixed, search

    choose(True, False, True, False)
    try:
        yield
    finally:
        choose(*before)


def spread(objective: Objective, ranks: Ranks, *, shard: bool, bf16: bool) -> nn.Module:
    """What to call for the loss: the objective itself, in DDP, or (in place) sharded by FSDP2."""
    if shard and ranks.world > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        half = torch.bfloat16 if bf16 else None
        # Autocast casts what a matrix product reads; noise level, target and weight stay float32.
        policy = MixedPrecisionPolicy(
            param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        mesh = init_device_mesh(ranks.device.type, (ranks.world,))
        for block in objective.network.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(objective, mesh=mesh, mp_policy=policy)
        return objective
    if ranks.world > 1:
        return DistributedDataParallel(
            objective, gradient_as_bucket_view=True, broadcast_buffers=False
        )
    return objective


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether FSDP2 shards this tensor."""
    return hasattr(tensor, "to_local")


def _shards(module: nn.Module) -> "TypeGuard[FSDPModule]":
    return hasattr(module, "set_requires_gradient_sync")


def orders_buckets(objective: nn.Module) -> bool:
    """Whether DDP moves its gradients."""
    return isinstance(objective, DistributedDataParallel)


def gradient_sync(objective: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around a microbatch: gradients travel between ranks once a step, with the last of them."""
    if _shards(objective):
        objective.set_requires_gradient_sync(last)
    elif isinstance(objective, DistributedDataParallel) and not last:
        return objective.no_sync()
    return nullcontext()


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that FSDP2 sharded; the tensor itself if it did not."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(part: Tensor, like: Tensor) -> Tensor:
    """The full tensor whose local part is `part`, sharded as `like` is. All ranks must call it."""
    if not is_sharded(like):
        return part
    from torch.distributed.tensor import DTensor

    sharded = DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
    return sharded.full_tensor()


def fill(part: Tensor, full: Tensor, like: Tensor) -> None:
    """Copy this rank's part of `full` (the same on all ranks) into `part`: undoes `whole`."""
    if is_sharded(like):
        from torch.distributed.tensor import distribute_tensor

        full = distribute_tensor(full.to(part.device), like.device_mesh, like.placements).to_local()
    part.copy_(full)
