"""Anybody's network as a denoiser D(x, sigma, labels) -> x0 in VE coordinates.

An adapter for `jstar diagnose --denoiser mine:denoiser` is three lines:

    def denoiser():
        network = torch.load("network.pt", weights_only=False).eval()
        return lambda x, sigma, labels: network(x, sigma, labels)  # x [B, ...], sigma [B] -> x0

A bare network that is trained through a process of `jstar.noise` needs `preconditioned(network,
"edm")` instead of the lambda; SiT, 2023 DiT and diffusers have ready adapters.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.errors import JstarError, nearest
from jstar.evaluate.losses import Denoiser
from jstar.noise import NoiseLaw, Process, process
from jstar.records import read_json
from jstar.train.snapshots import list_snapshots, load_denoiser, run_process, stored_averages

# A network that is told labels is called with them, one that is not is called without.
Network = Callable[..., Tensor]


@dataclass(frozen=True)
class Adapter:
    """A denoiser with what is known of it.

    process: its training process, whose weights make the total loss; None if unknown.
    sigma_min, sigma_max: the noise scales it was made for; it is asked for no other.
    """

    name: str
    denoise: Denoiser
    process: Process | None = None
    sigma_min: float = 0.0
    sigma_max: float = float("inf")
    card_id: str | None = None  # of the training distribution, where it is known
    conditional: bool = False  # whether it is to be given labels


def preconditioned(network: Network, proc: Process | str, **parameters: Any) -> Adapter:
    """Adapter of a bare network F: D(x; sigma) = c_skip x + c_out F(c_in x, c_noise, labels).

    proc: a process, or its name and, as keywords, the parameters of `jstar.noise.process`
    (sigma_data ...): EDM and EDM2 networks, VP, VE, v, flow matching. network: called with
    (c_in x [B, ...], c_noise [B]) and, if there are labels, labels [B]; where it returns twice the
    channels (learned variance) the first half is taken.
    """
    chosen = process(proc, **parameters) if isinstance(proc, str) else proc

    def first_half(x: Tensor, c_noise: Tensor, *labels: Tensor) -> Tensor:
        out = network(x, c_noise, *labels)
        twice = out.ndim == x.ndim and out.shape[1:2] == (2 * x.shape[1],)
        return out[:, : x.shape[1]] if twice else out

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        given = () if labels is None else (labels,)
        out: Tensor = chosen.denoise(first_half, x, sigma, *given)
        return out

    return Adapter(f"{chosen.name} network", denoise, chosen)


def sit(network: Network) -> Adapter:
    """Adapter of a SiT (arXiv 2401.08740): linear path, its time runs from noise 0 to data 1.

    network(x_t, t, labels) predicts the velocity x0 - eps, the opposite of `fm`'s.
    """
    return preconditioned(lambda x, t, *labels: -network(x, 1 - t, *labels), "fm")


def discrete(
    network: Network, sigma_T: NDArray[np.float64], prediction: str = "epsilon"
) -> Adapter:
    """Adapter of a variance-preserving network trained at the time steps 0...T - 1.

    network: called with (x / sqrt(1 + sigma^2), step [B] (a float: between two steps ln sigma is
    interpolated), labels). sigma_T: noise scale of every step, increasing; steps without signal
    (infinite sigma) are left out. prediction: epsilon, v_prediction or sample, as in diffusers.
    """
    known = {"epsilon": "vp", "v_prediction": "v", "sample": "vp"}
    if prediction not in known:
        raise JstarError(
            f"prediction_type: '{prediction}' is unknown, allowed are {', '.join(known)}"
            + nearest(prediction, known)
        )
    table_T = np.asarray(sigma_T, dtype=np.float64)
    table_T = table_T[np.isfinite(table_T)]
    if len(table_T) < 2 or (np.diff(table_T) <= 0).any() or table_T[0] <= 0:
        raise JstarError("schedule: its noise scales must be positive and increase with the step")
    proc = replace(
        process(known[prediction]),
        name=f"discrete {prediction}",
        law=_uniform_steps(table_T),
        c_noise=lambda sigma: _step_of(sigma, table_T),
    )
    if prediction == "sample":
        proc = replace(
            proc, prediction="x0", weight=lambda s: s * 0 + 1, c_skip=lambda s: s * 0,
            c_out=lambda s: s * 0 + 1,
        )  # fmt: skip
    made = preconditioned(network, proc)
    return replace(made, sigma_min=float(table_T[0]), sigma_max=float(table_T[-1]))


def ddpm_sigmas(
    steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> NDArray[np.float64]:
    """Noise scales [T] of DDPM's linear schedule, which ADM and the 2023 DiT use too."""
    kept_T = np.cumprod(1 - np.linspace(beta_start, beta_end, steps))
    return np.sqrt((1 - kept_T) / kept_T)


def dit(network: Network) -> Adapter:
    """Adapter of a 2023 DiT or ADM network: epsilon at DDPM's 1,000 steps, learned variance."""
    return discrete(network, ddpm_sigmas())


def _step_of(sigma: Tensor, sigma_T: NDArray[np.float64]) -> Tensor:
    """Time step [B] of a noise scale, between two steps linear in ln sigma."""
    log_s = sigma.detach().double().log().cpu().numpy()
    step = np.interp(log_s, np.log(sigma_T), np.arange(len(sigma_T)))
    return torch.as_tensor(step, dtype=torch.float32, device=sigma.device)


def _uniform_steps(sigma_T: NDArray[np.float64]) -> NoiseLaw:
    """The noise law of uniform time steps, made continuous."""
    log_T, step_T = np.log(sigma_T), np.arange(len(sigma_T), dtype=np.float64)
    density_T = 1 / (np.gradient(log_T) * (len(sigma_T) - 1))
    return NoiseLaw(
        quantile=lambda u: np.exp(np.interp(u * step_T[-1], step_T, log_T)),
        density=lambda s: np.interp(np.log(s), log_T, density_T, left=0.0, right=0.0),
    )


# --- where adapters come from -----------------------------------------------------------------


def from_run(
    run: str | Path, snapshot: int | None = None, ema: float | None = None, device: str = "cpu"
) -> Adapter:
    """Adapter of a finished training run, by default its last snapshot and first EMA length."""
    snapshots = list_snapshots(run)
    index = snapshots[-1].index if snapshot is None else snapshot
    images = int(stored_averages(run, index).times[-1])
    info = read_json(Path(run) / "run.json")
    length = info["config"]["train"]["ema"][0] if ema is None else ema
    return Adapter(
        name=f"{info['study']}/{Path(run).name} after {images:,} images",
        denoise=load_denoiser(run, index, length, device),
        process=run_process(run),
        card_id=info["card_id"],
        conditional=info["model_config"]["classes"] > 0,
    )


def from_factory(spec: str) -> Adapter:
    """Adapter that `module:factory` makes; modules of the working directory are found.

    The factory takes no arguments and returns an Adapter or a function (x [B, ...], sigma [B],
    labels [B] or None) -> x0. Raises JstarError: one sentence.
    """
    module_name, colon, name = spec.partition(":")
    if not (module_name and colon and name):
        raise JstarError(f"denoiser: '{spec}' is not allowed, it must be module:factory")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # anything may go wrong in foreign code
        raise JstarError(
            f"denoiser: the module '{module_name}' cannot be imported ({_first_line(error)})"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        found = [n for n in vars(module) if not n.startswith("_") and callable(vars(module)[n])]
        raise JstarError(
            f"denoiser: the module '{module_name}' has no function '{name}'{nearest(name, found)}"
        )
    try:
        made = factory()
    except JstarError:
        raise
    except Exception as error:
        raise JstarError(f"denoiser: '{spec}' ended with {_first_line(error)}") from error
    if isinstance(made, Adapter):
        return made
    if not callable(made):
        raise JstarError(
            f"denoiser: '{spec}' returned {type(made).__name__}, allowed are an Adapter or a "
            "function (x, sigma, labels) -> x0"
        )
    return Adapter(spec, made)


def guarded(denoise: Denoiser) -> Denoiser:
    """`denoise`, with what goes wrong inside it in one sentence (JstarError)."""

    def call(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        try:
            out = denoise(x, sigma, labels)
        except JstarError:
            raise
        except Exception as error:
            raise JstarError(
                f"denoiser: called with images of shape {tuple(x.shape)} and sigma of shape "
                f"{tuple(sigma.shape)} it ended with {_first_line(error)}"
            ) from error
        if not isinstance(out, Tensor):
            raise JstarError(
                f"denoiser: returned {type(out).__name__}, it must return a tensor of shape "
                f"{tuple(x.shape)}"
            )
        return out

    return call


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
