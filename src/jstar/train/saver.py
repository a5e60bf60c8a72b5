"""Checkpoints and snapshots written by a thread, from a copy, while training goes on."""

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType

import torch
from torch import Tensor

from jstar.errors import JstarError
from jstar.train.tensor_file import TensorFile


class Saver:
    """Writes files one after the other, in the order of `start`; of each kind one at a time.

    The copy of a kind is kept and used again: its memory is asked for once. After an error nothing
    more is written, because a checkpoint must not outlive the snapshot before it. Leaving its
    context waits for what is being written.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0  # that the longest took to be written
        self._pool = ThreadPoolExecutor(1, "jstar-saver")
        self._copies: dict[str, TensorFile] = {}
        self._writing: dict[str, Future[None]] = {}
        self._broken = False

    def copy(self, kind: str, shapes: Mapping[str, Tensor]) -> TensorFile:
        """What tensors are to be put into, once the last of that kind is written. Raises its error.

        shapes: a tensor like each, whose values do not count.
        """
        self.wait(kind)
        pinned = self.device.type == "cuda"
        self._copies[kind] = TensorFile(shapes, self._copies.get(kind), pinned=pinned)
        return self._copies[kind]

    def start(self, kind: str, write: Callable[[TensorFile], None]) -> None:
        """Call `write` with the copy of a kind, on the thread; `put` into it has ended."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        self.do(kind, partial(write, self._copies[kind]))

    def do(self, kind: str, job: Callable[[], None]) -> None:
        """Do any job of a kind, on the thread."""
        self._writing[kind] = self._pool.submit(self._do, job)

    def _do(self, job: Callable[[], None]) -> None:
        if self._broken:
            return
        begun = time.monotonic()
        try:
            job()
        except BaseException:
            self._broken = True
            raise
        self.seconds = max(self.seconds, time.monotonic() - begun)

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return any(not writing.done() for writing in self._writing.values())

    def check(self) -> None:
        """Raise the error of what was written since, without waiting."""
        for kind in [kind for kind, writing in self._writing.items() if writing.done()]:
            self.wait(kind)

    def wait(self, kind: str | None = None) -> None:
        """Until everything (of a kind) is written. Raises its error, once."""
        for name in [kind] if kind is not None else list(self._writing):
            writing = self._writing.pop(name, None)
            if writing is not None:
                writing.result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)
        try:
            self.wait()
        except JstarError as late:
            if error is None:
                raise
            print(f"train: {late}", file=sys.stderr)  # the first error is the one that is raised
