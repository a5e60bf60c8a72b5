"""Rows of a stored array on the training device, wherever the array fits."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AT_HAND_BYTES = 8 * 2**30  # an array up to this size is read when asked for, not ahead
UPLOADED = 4096  # rows that travel to a GPU at once


class StoredRows:
    """Rows of a memory-mapped array [N, ...], on `device`, in their stored unit and type.

    All processes of a machine read the same pages of its memory: none has a copy of its own. With
    `resident` a GPU keeps one. Otherwise the rows of a large array that come next are read by a
    thread while the device trains; to a GPU they travel from pinned memory, in the type they are
    stored in (8-bit pixels: a quarter of float32).
    """

    def __init__(
        self, stored: NDArray[Any], device: torch.device, *, resident: bool = False
    ) -> None:
        self.stored, self.device = stored, device
        self.resident = _upload(stored, device) if resident and device.type == "cuda" else None
        self.ahead = device.type == "cuda" or stored.nbytes > AT_HAND_BYTES
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
        if self.resident is None and self.ahead:
            self._next = index_M, self._thread.submit(self._read, index_M)

    def _read(self, index_M: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(self.stored[index_M])
        return rows.pin_memory() if self.device.type == "cuda" else rows


def _upload(stored: NDArray[Any], device: torch.device) -> Tensor:
    """The array on a GPU, by pieces: no process holds all of it in its own memory."""
    dtype = torch.from_numpy(np.empty(0, stored.dtype)).dtype
    whole = torch.empty(stored.shape, dtype=dtype, device=device)
    for start in range(0, len(stored), UPLOADED):
        part = slice(start, start + UPLOADED)
        whole[part] = torch.from_numpy(np.array(stored[part])).to(device)
    return whole
