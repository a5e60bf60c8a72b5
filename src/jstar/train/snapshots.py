"""Snapshots of a finished run: EMA weights at log-spaced compute, and denoisers made of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jstar.errors import JstarError
from jstar.model import DiT, DiTConfig
from jstar.noise import Process, process
from jstar.records import read_json

FOLDER = "snapshots"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot: how many images the run had seen, and the training FLOPs spent on them."""

    index: int
    images: int
    flops: float


def snapshot_file(folder: Path, index: int) -> Path:
    """File of a snapshot's weights, all EMA lengths in one; keys are LENGTH/PARAMETER."""
    return folder / FOLDER / f"{index:03d}.safetensors"


def tensor_key(ema: float, name: str) -> str:
    """Key of a parameter's average."""
    return f"{ema:g}/{name}"


def list_snapshots(run: str | Path) -> list[Snapshot]:
    """The snapshots of a finished run, oldest first. Raises JstarError if the run is not there."""
    return [Snapshot(**entry) for entry in _run_info(run)["snapshots"]]


def load_network(run: str | Path, index: int, ema: float, device: str = "cpu") -> DiT:
    """The network of one snapshot and EMA length, for evaluation."""
    info = _run_info(run)
    path = snapshot_file(Path(run), index)
    with torch.device("meta"):
        network = DiT(DiTConfig(**info["model_config"]))
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            stored = set(file.keys())
            for name, _ in network.named_parameters():
                key = tensor_key(ema, name)
                if key not in stored:
                    found = sorted({k.split("/")[0] for k in stored})
                    raise JstarError(
                        f"{path}: holds no EMA of length {ema:g}, found are {', '.join(found)}"
                    )
                weights[name] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise JstarError(f"{path}: cannot be read ({error})") from error
    network.load_state_dict(weights, strict=True, assign=True)
    network.place_positions("cpu")
    return network.to(device).eval().requires_grad_(False)


def load_denoiser(
    run: str | Path, index: int, ema: float, device: str = "cpu"
) -> Callable[..., Tensor]:
    """D(x [B,C,H,W], sigma [B] or float, labels [B] or None) -> x0 estimate of one snapshot.

    Raises JstarError if the run, the snapshot or that EMA length is not there.
    """
    network, proc = load_network(run, index, ema, device), run_process(run)

    @torch.inference_mode()
    def denoise(x: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Tensor:
        sigma_B = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        out: Tensor = proc.denoise(network, x, sigma_B, labels)
        return out

    return denoise


def run_process(run: str | Path) -> Process:
    """The training process of a finished run."""
    return process(**_run_info(run)["process"])


def _run_info(run: str | Path) -> dict[str, Any]:
    path = Path(run) / "run.json"
    if not path.is_file():
        raise JstarError(f"{run}: is not a finished run, it holds no run.json")
    return read_json(path)
