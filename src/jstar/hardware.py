"""What kinds of GPU can do, as their makers state it: for the trainer's MFU and the plan."""

import platform
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
# Not for tensors: CUDA's context, its libraries' workspaces and NCCL's buffers. Assumed.
RESERVED_BYTES = 2.1 * GIB


@dataclass(frozen=True)
class Gpu:
    """Dense peaks without sparsity; `float32` is that of the plain units, TF32 is off.

    `bandwidth` is that of its memory, `link` what it sends to its neighbours in a node; bytes/s.
    """

    name: str
    bf16: float  # FLOP/s
    float32: float
    bandwidth: float
    memory: float  # bytes that torch sees
    link: float

    @property
    def usable(self) -> float:
        """Bytes for tensors."""
        return self.memory - RESERVED_BYTES


# Looked up in this order, by a part of the device's name: the PCIe cards are slower than what else
# is called H100.
GPUS = (
    Gpu("H200 NVL", 835e12, 60e12, 4.8e12, 139.8 * GIB, 450e9),
    Gpu("H200", 989e12, 67e12, 4.8e12, 139.8 * GIB, 450e9),
    Gpu("H100 PCIe", 756e12, 51e12, 2.0e12, 79.1 * GIB, 64e9),
    Gpu("H100 NVL", 835e12, 60e12, 3.9e12, 93.1 * GIB, 300e9),
    Gpu("H100", 989e12, 67e12, 3.35e12, 79.1 * GIB, 450e9),
    Gpu("A100", 312e12, 19.5e12, 2.0e12, 79.1 * GIB, 300e9),
    Gpu("L40S", 362e12, 91.6e12, 0.864e12, 44.4 * GIB, 32e9),
    Gpu("B200", 2250e12, 75e12, 7.7e12, 178.3 * GIB, 900e9),
)
PLANNED = ("A100", "H100", "H200", "B200")  # compared by `jstar plan`


def find_gpu(device_name: str) -> Gpu | None:
    """The kind that a device's name names, None for one that is not in the table."""
    return next((gpu for gpu in GPUS if gpu.name in device_name), None)


def cpu_name() -> str:
    """This processor's name, as its maker states it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
