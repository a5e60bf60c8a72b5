"""The one place that chooses between CPU and GPU."""

import torch

from jstar.errors import JstarError


def default_device(name: str | torch.device | None = None) -> torch.device:
    """The device `name`; None: a GPU if there is one. Raises JstarError if it is not here.

    Of other kinds (mps, xpu ...) the one that torch calls this machine's accelerator is allowed.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name or ("cuda" if gpus else "cpu"))
    except RuntimeError:
        device = None
    accelerator = torch.accelerator
    other = accelerator.current_accelerator() if accelerator.is_available() else None
    kinds = ["cpu", *([other.type] if other and other.type != "cuda" else [])]
    lost = device is None or (
        (device.index or 0) >= gpus if device.type == "cuda" else device.type not in kinds
    )
    if device is None or lost:
        here = ", ".join([*kinds, *(f"cuda:{k}" for k in range(gpus))])
        raise JstarError(f"device: '{name}' is not on this machine, allowed are {here}")
    return device
