"""Snapshots of a finished run: EMA weights at log-spaced compute, and denoisers made of them.

Where the run has cooldowns, their last weights lie beside the snapshots at which they end.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jstar.averages import Stored
from jstar.constants import COOLDOWN
from jstar.errors import JstarError
from jstar.model import DiT, DiTConfig
from jstar.model.network_choice import IN_C, noted_network
from jstar.noise import Process, process
from jstar.records import made_by, read_json, require_intact

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


def cooldown_file(folder: Path, index: int) -> Path:
    """File of the weights of the cooldown that ends at a snapshot."""
    return folder / FOLDER / f"cooldown-{index:03d}.safetensors"


def tensor_key(ema: float, name: str) -> str:
    """Key of a parameter's average."""
    return f"{ema:g}/{name}"


def list_snapshots(run: str | Path) -> list[Snapshot]:
    """The snapshots of a finished run, oldest first. Raises JstarError if the run is not there."""
    return [Snapshot(**entry) for entry in _run_info(run)["snapshots"]]


def require_whole(run: str | Path) -> None:
    """Raise JstarError if a file of a finished run is not the one that was published."""
    record = Path(run) / "run.json"
    for name in made_by(record):
        require_intact(record.parent / name, record, "train the run again")


def list_cooldowns(run: str | Path) -> list[Snapshot]:
    """The snapshots of a finished run at which a cooldown ends. Raises as `list_snapshots`."""
    ends = _run_info(run).get("cooldowns", [])
    return [snapshot for snapshot in list_snapshots(run) if snapshot.index in ends]


def stored_averages(run: str | Path, index: int) -> Stored:
    """What a finished run has stored up to one snapshot. Raises JstarError if it is not there."""
    snapshots = list_snapshots(run)
    if index not in [s.index for s in snapshots]:
        raise JstarError(
            f"{run}: has no snapshot {index}, allowed are {snapshots[0].index} to "
            f"{snapshots[-1].index}"
        )
    lengths = _run_info(run)["config"]["train"]["ema"]
    return Stored(tuple(lengths), tuple(s.images for s in snapshots if s.index <= index))


def load_network(run: str | Path, index: int, ema: float, device: str = "cpu") -> DiT:
    """The network of one snapshot and EMA length, for evaluation; COOLDOWN: of its cooldown.

    A length that is not stored is made of all snapshots up to this one, where they tell it
    (`jstar.averages`). Beside the network only one parameter is held in memory, in float64.
    """
    info = _run_info(run)
    with torch.device("meta"):
        network = DiT(DiTConfig(**info["model_config"]))
    network.in_c = noted_network(info.get("block"), network.config) == IN_C
    terms = _terms(run, index, ema)
    weights: dict[str, Tensor] = {}
    with ExitStack() as stack:
        files = {}
        for path in {path for path, _, _ in terms}:
            require_intact(path, Path(run) / "run.json", "train the run again")
            with _reading(path):
                files[path] = stack.enter_context(safe_open(path, framework="pt", device="cpu"))
        for name, parameter in network.named_parameters():
            total = torch.zeros(parameter.shape, dtype=torch.float64)
            for path, length, coefficient in terms:
                with _reading(path):
                    part = files[path].get_tensor(tensor_key(length, name))
                if part.shape != parameter.shape:
                    raise JstarError(
                        f"{path}: '{name}' has the shape {tuple(part.shape)}, run.json says "
                        f"{tuple(parameter.shape)}; train the run again"
                    )
                total.add_(part, alpha=coefficient)
            weights[name] = total.float()
    network.load_state_dict(weights, strict=True, assign=True)
    network.place_positions("cpu")
    return network.to(device).eval().requires_grad_(False)


def _terms(run: str | Path, index: int, ema: float) -> list[tuple[Path, float, float]]:
    """(file, stored length, coefficient) of the sum that is the average asked for."""
    if ema == COOLDOWN:
        ends = [s.index for s in list_cooldowns(run)]
        if index not in ends:
            allowed = f"allowed are {', '.join(map(str, ends))}" if ends else "it has none"
            raise JstarError(f"{run}: has no cooldown to snapshot {index}, {allowed}")
        return [(cooldown_file(Path(run), index), COOLDOWN, 1.0)]
    stored = stored_averages(run, index)
    if ema in stored.lengths:
        return [(snapshot_file(Path(run), index), ema, 1.0)]
    try:
        stored.require(ema)
    except JstarError as error:
        raise JstarError(f"{run}, snapshot {index}: {error}") from None
    kept = [s.index for s in list_snapshots(run) if s.index <= index]
    return [
        (snapshot_file(Path(run), number), length, float(coefficient))
        for number, row in zip(kept, stored.combine(ema)[0], strict=True)
        for length, coefficient in zip(stored.lengths, row, strict=True)
    ]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise JstarError(f"{path}: cannot be read ({error})") from error


def load_denoiser(
    run: str | Path, index: int, ema: float, device: str = "cpu", *, bf16: bool = False
) -> Callable[..., Tensor]:
    """D(x [B,C,H,W], sigma [B] or float, labels [B] or None) -> x0 estimate of one snapshot.

    bf16: matrix products of the network in bfloat16; its preconditioning stays in float32.

    Raises JstarError if the run or the snapshot is not there, or nothing tells that EMA length.
    """
    return denoiser_of(load_network(run, index, ema, device), run_process(run), bf16=bf16)


def denoiser_of(network: DiT, proc: Process, *, bf16: bool) -> Callable[..., Tensor]:
    """The denoiser that a network is under a training process; see `load_denoiser`."""

    @torch.inference_mode()
    def denoise(x: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Tensor:
        sigma_B = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
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
    info = read_json(path)
    try:
        _ = [Snapshot(**entry) for entry in info["snapshots"]]
        _ = DiTConfig(**info["model_config"]), process(**info["process"]), info["card_id"]
        _ = [float(length) for length in info["config"]["train"]["ema"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JstarError(f"{path}: is not the record of a run ({error!r})") from error
    return info
