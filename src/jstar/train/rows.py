"""Rows of a stored array on the training device, wherever the array fits."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESIDENT_BYTES = 8 * 2**30  # an array up to this size is kept in memory,
RESIDENT_SHARE = 0.25  # or up to this share of a GPU's


class StoredRows:
    """Rows of a memory-mapped array [N, ...], on `device`, in their stored unit and type.

    An array that fits is kept there. Of a larger one the rows that come next are read by a thread
    while the device trains; to a GPU they travel from pinned memory, in the type they are stored in
    (8-bit pixels: a quarter of float32).
    """

    def __init__(self, stored: NDArray[Any], device: torch.device) -> None:
        self.stored, self.device = stored, device
        self.resident: Tensor | None = None
        if stored.nbytes <= _resident_bytes(device):
            self.resident = torch.from_numpy(np.array(stored)).to(device)
        self._thread = ThreadPoolExecutor(1, "jstar-read")
        self._next: tuple[NDArray[np.int64], Future[Tensor]] | None = None

    def take(self, index_M: NDArray[np.int64]) -> Tensor:
        """The rows `index_M`, as float32 [M, ...]."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(index_M).to(self.device)].float()
        expected, self._next = self._next, None
        if expected is not None and np.array_equal(expected[0], index_M):
            rows = expected[1].result()
        else:
            rows = self._read(index_M)
        return rows.to(self.device, non_blocking=True).float()

    def expect(self, index_M: NDArray[np.int64]) -> None:
        """Begin to read the rows that the next `take` will ask for."""
        if self.resident is None:
            self._next = index_M, self._thread.submit(self._read, index_M)

    def _read(self, index_M: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(self.stored[index_M])
        return rows.pin_memory() if self.device.type == "cuda" else rows


def _resident_bytes(device: torch.device) -> float:
    """How large an array may be kept on the device."""
    if device.type != "cuda":
        return RESIDENT_BYTES
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(RESIDENT_BYTES, RESIDENT_SHARE * memory)
