"""Tensors as the bytes of a .safetensors file, written and hashed in one pass."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jstar.records import write_atomically

KINDS = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32"}  # in the file's order
PIECE = 2**26  # bytes: torch rounds pinned memory up to a power of two, here only the last piece's
BLOCK = 2**23  # bytes between two looks at the interpreter's lock


class TensorFile:
    """Content of a .safetensors file that holds tensors of these shapes and kinds, on the CPU.

    `shapes`: a tensor like each, whose values do not count. The bytes are those that `save_file` of
    the package safetensors writes (format: https://github.com/huggingface/safetensors). `pinned`
    memory takes what a GPU holds at its link's full speed; memory of `before` is used again.
    """

    def __init__(
        self, shapes: Mapping[str, Tensor], before: "TensorFile | None" = None, *,
        pinned: bool = False,
    ) -> None:  # fmt: skip
        order = list(KINDS)
        names = sorted(shapes, key=lambda name: (order.index(shapes[name].dtype), name))
        self.begins: dict[str, int] = {}
        tree, end = {}, 0
        for name in names:
            like = shapes[name]
            self.begins[name], end = end, end + like.numel() * like.dtype.itemsize
            tree[name] = {
                "dtype": KINDS[like.dtype],
                "shape": list(like.shape),
                "data_offsets": [self.begins[name], end],
            }
        text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.head = len(text).to_bytes(8, "little") + text
        sizes = [min(PIECE, end - begin) for begin in range(0, end, PIECE)]
        self.memory: list[Tensor] = [] if before is None else before.memory
        for k, size in enumerate(sizes):
            if k == len(self.memory):
                self.memory.append(_empty(size, pinned))
            elif size > len(self.memory[k]):
                self.memory[k] = _empty(size, pinned)
        self.pieces = [piece[:size] for piece, size in zip(self.memory, sizes, strict=False)]

    def put(self, name: str, tensor: Tensor) -> None:
        """Copy a tensor to its place. From a GPU the copy is only issued, on the current stream."""
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        place, done = self.begins[name], 0
        while done < len(flat):
            piece, begin = self.pieces[(place + done) // PIECE], (place + done) % PIECE
            size = min(len(flat) - done, len(piece) - begin)
            piece[begin : begin + size].copy_(flat[done : done + size], non_blocking=True)
            done += size

    def blocks(self) -> Iterator[bytes | memoryview]:
        """The file's content, in its order."""
        parts: list[bytes | memoryview] = [self.head]
        arrays: list[Any] = [piece.numpy() for piece in self.pieces]
        parts += [memoryview(array) for array in arrays]
        for part in parts:
            for begin in range(0, len(part), BLOCK):
                yield part[begin : begin + BLOCK]

    def write(self, path: Path) -> dict[str, Any]:
        """Write it whole or not at all; returns bytes and sha256. Raises JstarError."""
        digest, size = hashlib.sha256(), 0

        def write(temporary: Path) -> None:
            nonlocal size
            with temporary.open("wb") as file:
                for block in self.blocks():
                    file.write(block)
                    digest.update(block)
                    size += len(block)

        write_atomically(path, write)
        return {"bytes": size, "sha256": digest.hexdigest()}


def _empty(size: int, pinned: bool) -> Tensor:
    """At least `size` bytes: room for the tables of a run, which grow."""
    return torch.empty(2 ** (size - 1).bit_length(), dtype=torch.uint8, pin_memory=pinned)
