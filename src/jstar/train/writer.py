"""Optional: send the telemetry to TensorBoard or Weights & Biases as well. Off by default."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jstar.errors import JstarError
from jstar.train.speed import Speed


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
def open_writer(kind: str | None, folder: Path) -> Iterator[Writer]:
    """A writer of that kind; None sends nothing. W&B runs offline unless its variables say else."""
    if kind is None:
        yield Writer()
    elif kind == "tensorboard":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing(kind) from error
        board = SummaryWriter(str(folder / "tensorboard"))

        def send(numbers: dict[str, float], images: int) -> None:
            for name, value in numbers.items():
                board.add_scalar(name, value, images)

        yield Writer(send)
        board.close()
    else:
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError as error:
            raise _missing(kind) from error
        import os

        mode = os.environ.get("WANDB_MODE", "offline")
        with wandb.init(project="jstar", name=folder.name, dir=str(folder), mode=mode) as session:
            yield Writer(lambda numbers, images: session.log({"images": images, **numbers}))


def _missing(kind: str) -> JstarError:
    return JstarError(
        f"train.writer = '{kind}': the package '{kind}' is not installed; install it, or remove "
        "the key"
    )
