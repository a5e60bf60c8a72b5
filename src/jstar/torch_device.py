"""The one place that chooses between CPU and GPU."""

import torch

from jstar.errors import JstarError


def default_device(name: str | torch.device | None = None) -> torch.device:
    """The device `name`; None: a GPU if there is one. Raises JstarError if it is not here."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        device = torch.device(name or ("cuda" if gpus else "cpu"))
    except RuntimeError:
        device = None
    if device is None or (device.type == "cuda" and (device.index or 0) >= gpus):
        here = ", ".join(["cpu", *(f"cuda:{k}" for k in range(gpus))])
        raise JstarError(f"device: '{name}' is not on this machine, allowed are {here}")
    return device
