"""Optional: send the telemetry to TensorBoard or Weights & Biases as well. Off by default."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from jstar.errors import JstarError
from jstar.train.speed import Speed

FOLDERS = ("tensorboard", "wandb")  # in a run's state folder


class Writer:
    """Sends named numbers to `send(numbers, images)`."""

    def __init__(self, send: Any = None) -> None:
        self.send = send

    def write(self, images: int, loss: float, speed: Speed, bins: dict[float, float]) -> None:
        """One record: mean loss, speed, and the x0 loss by noise scale."""
        if self.send is None:
            return
        numbers = {"loss": loss}
        numbers |= {f"speed/{k}": v for k, v in asdict(speed).items() if k != "images"}
        numbers |= {f"loss_at_sigma/{sigma:.4g}": value for sigma, value in bins.items()}
        self.send(numbers, images)


@contextmanager
def open_writer(kind: str | None, folder: Path, images: int) -> Iterator[Writer]:
    """A writer of that kind; None sends nothing. W&B runs offline unless its variables say else.

    images: those seen so far. A resumed run goes on in the same record, and what a killed session
    had sent beyond its last checkpoint is sent again: TensorBoard forgets the first copy.
    """
    if kind is None:
        yield Writer()
    elif kind == "tensorboard":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing(kind) from error
        board = SummaryWriter(str(folder / kind), purge_step=images + 1)

        def send(numbers: dict[str, float], images: int) -> None:
            for name, value in numbers.items():
                board.add_scalar(name, value, images)

        try:
            yield Writer(send)
        finally:
            board.close()
    else:
        try:
            wandb: Any = import_module("wandb")
        except ImportError as error:
            raise _missing(kind) from error
        name = f"{folder.parent.name}-{folder.name}"  # study, model and seed
        quiet = wandb.Settings(silent=True, console="off")
        mode = os.environ.get("WANDB_MODE", "offline")
        resume = None if mode == "offline" else "allow"  # offline, W&B joins records of one id
        with wandb.init(
            project="jstar", id=name, name=name, dir=str(folder), mode=mode, resume=resume,
            settings=quiet,
        ) as session:  # fmt: skip
            session.define_metric("*", step_metric="images")
            yield Writer(lambda numbers, images: session.log({"images": images, **numbers}))


def _missing(kind: str) -> JstarError:
    return JstarError(
        f"train.writer = '{kind}': the package '{kind}' is not installed; install it, or remove "
        "the key"
    )
