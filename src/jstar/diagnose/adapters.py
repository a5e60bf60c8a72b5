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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot as rows_of_labels

from jstar.diagnose.readings import (
    OF_PROCESS,
    REVERSED,
    Network,
    Parts,
    ddpm_sigmas,
    first_half,
    step_of,
    table_reading,
)
from jstar.errors import JstarError, nearest
from jstar.evaluate.losses import Denoiser
from jstar.noise import NoiseLaw, Process, process
from jstar.records import read_json
from jstar.train.snapshots import list_snapshots, load_denoiser, run_process, stored_averages


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
    parts: Parts | None = None  # the network inside and how it is read, where jstar put it together
    notes: tuple[str, ...] = ()  # what the user should know of it, a sentence each


def preconditioned(
    network: Network, proc: Process | str, *, one_hot: int | None = None, **parameters: Any
) -> Adapter:
    """Adapter of a bare network F: D(x; sigma) = c_skip x + c_out F(c_in x, c_noise, labels).

    proc: a process, or its name and, as keywords, the parameters of `jstar.noise.process`
    (sigma_data ...): EDM and EDM2 networks, VP, VE, v, flow matching. network: called with
    (c_in x [B, ...], c_noise [B]) and, if there are labels, labels [B] (one_hot = K: float
    [B, K], as EDM's networks want them); where it returns twice the channels (learned variance)
    the first half is taken.
    """
    told = with_one_hot(network, one_hot)
    if isinstance(proc, str):
        chosen = process(proc, **parameters)
        claim = replace(OF_PROCESS[proc], sigma_data=parameters.get("sigma_data", 0.5))
        return assembled(Parts(told, claim), chosen)

    def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        given = () if labels is None else (labels,)
        out: Tensor = proc.denoise(lambda x, *rest: first_half(told(x, *rest), x), x, sigma, *given)
        return out

    return Adapter(f"{proc.name} network", denoise, proc)


def assembled(parts: Parts, proc: Process) -> Adapter:
    """Adapter of a network as its claimed reading has it; proc: its training process."""
    return Adapter(f"{proc.name} network", parts.denoiser(parts.claim), proc, parts=parts)


def with_one_hot(network: Network, classes: int | None) -> Network:
    """A network that is told its labels [B] as rows of 0 and 1, float [B, classes]."""
    if classes is None:
        return network

    def call(x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            return network(x, time)
        if int(labels.max()) >= classes:
            raise JstarError(
                f"one_hot = {classes}: the label {int(labels.max())} is not allowed, the dataset "
                f"needs at least {int(labels.max()) + 1}"
            )
        return network(x, time, rows_of_labels(labels, classes).float())

    return call


def sit(network: Network) -> Adapter:
    """Adapter of a SiT (arXiv 2401.08740): linear path, its time runs from noise 0 to data 1.

    network(x_t, t, labels) predicts the velocity x0 - eps, the opposite of `fm`'s.
    """
    return assembled(Parts(network, replace(OF_PROCESS["fm"], unit=REVERSED, sign=-1)),
                     process("fm"))  # fmt: skip


def discrete(
    network: Network,
    sigma_T: NDArray[np.float64],
    prediction: str = "epsilon",
    *,
    rounded: bool = False,
    one_hot: int | None = None,
) -> Adapter:
    """Adapter of a variance-preserving network trained at the time steps 0...T - 1.

    network: called with (x / sqrt(1 + sigma^2), step [B] (a float: between two steps ln sigma is
    interpolated), labels). sigma_T: noise scale of every step, increasing; steps without signal
    (infinite sigma) are left out, and a note says so. prediction: epsilon, v_prediction or sample,
    as in diffusers. rounded: the step is a whole number (int64), as a table of steps needs.
    one_hot: labels as rows of so many numbers.
    """
    known = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
    if prediction not in known:
        raise JstarError(
            f"prediction_type: '{prediction}' is unknown, allowed are {', '.join(known)}"
            + nearest(prediction, known)
        )
    whole_T = np.asarray(sigma_T, dtype=np.float64)
    table_T = whole_T[np.isfinite(whole_T)]
    if len(table_T) < 2 or (np.diff(table_T) <= 0).any() or table_T[0] <= 0:
        raise JstarError("schedule: its noise scales must be positive and increase with the step")
    claim = table_reading(known[prediction])
    proc = replace(
        process({"epsilon": "vp", "v_prediction": "v", "sample": "x0"}[prediction]),
        name=f"discrete {prediction}",
        law=_uniform_steps(table_T),
        c_noise=lambda sigma: step_of(sigma, table_T),
    )
    parts = Parts(with_one_hot(network, one_hot), claim, table_T, rounded)
    left_out = len(whole_T) - len(table_T)
    notes: tuple[str, ...] = ()
    if left_out:
        what = (
            "an epsilon network says nothing of the image there and cannot start from pure noise"
            if prediction == "epsilon"
            else "its output there is not measured"
        )
        notes = (
            f"the last {left_out} of {len(whole_T)} time steps have no signal (zero terminal SNR, "
            f"sigma infinite) and are left out: {what}",
        )
    return replace(
        assembled(parts, proc), sigma_min=float(table_T[0]), sigma_max=float(table_T[-1]),
        notes=notes,
    )  # fmt: skip


def dit(network: Network, *, rounded: bool = False) -> Adapter:
    """Adapter of a 2023 DiT or ADM network: epsilon at DDPM's 1,000 steps, learned variance."""
    return discrete(network, ddpm_sigmas(), rounded=rounded)


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


TABLE = ("expected scalar type long", "expected tensor for argument", "indices", "index out of")


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
                f"{tuple(sigma.shape)} it ended with {_first_line(error)}{_advice(error)}"
            ) from error
        if not isinstance(out, Tensor):
            raise JstarError(
                f"denoiser: returned {type(out).__name__}, it must return a tensor of shape "
                f"{tuple(x.shape)}"
            )
        return out

    return call


def _advice(error: Exception) -> str:
    """What may help against an error of a foreign network."""
    text = str(error).lower()
    if any(words in text for words in TABLE):
        return (
            "; a network with a table of time steps needs whole ones: discrete(..., rounded=True); "
            "labels beyond its table need another dataset"
        )
    if "one_hot" in text or "mat1 and mat2" in text or "must be tensor, not" in text:
        return "; a network that wants its labels one-hot needs one_hot=CLASSES"
    return ""


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
