"""The parts of an adapter: what goes into a network, what comes out, and what names there are.

A denoiser is made of a network by five parts, each of which an adapter may have wrong:

    u = k x + b                               data: the units of the network's images
    F = network(entry(k sigma) u, time(k sigma))
    D = (skip u + out F + shift - b) / k      prediction, with its sign

A `NetworkReading` names them. `Parts` is a network with the reading that its adapter claims.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.evaluate.losses import Denoiser
from jstar.noise import process, vp_time

# A network that is told labels is called with them, one that is not is called without.
Network = Callable[..., Tensor]
Scale = Callable[[Any], Any]  # of sigma


@dataclass(frozen=True)
class NetworkReading:
    """One way to read a network; the fields are keys of PREDICTIONS, ENTRIES, LAWS, UNITS, DATA.

    sign: -1 if the network returns the opposite. sigma_data: of EDM's preconditioning.
    """

    prediction: str
    entry: str
    law: str  # which number of the noise scale the network is told ...
    unit: str = "as it is"  # ... and in which units
    sign: int = 1
    data: str = "-1..1"
    sigma_data: float = 0.5

    def changes(self, other: "NetworkReading") -> list[str]:
        """Names of the parts in which the two differ."""
        named = ("prediction", "sign", "entry", "sigma_data", "law", "unit", "data")
        return [name for name in named if getattr(self, name) != getattr(other, name)]

    def words(self) -> str:
        """All parts in one line."""
        minus = "minus " if self.sign < 0 else ""
        return (
            f"prediction {minus}{self.prediction}; input {self.entry}; time {self.time}; "
            f"data {self.data}"
        )

    @property
    def time(self) -> str:
        """The number that the network is told, in words."""
        return self.law if self.unit == "as it is" else f"{self.law}, {self.unit}"


@dataclass(frozen=True)
class Affine:
    """u = factor x + shift."""

    factor: float
    shift: float = 0.0


# --- what comes out: (skip, out, shift) of the noise scale and sigma_data -------------------------

Out = Callable[[Any, float], tuple[Any, Any, float]]


def _of(name: str) -> Out:
    """What the network of a process of `jstar.noise` returns."""

    def rule(s: Any, sigma_data: float) -> tuple[Any, Any, float]:
        proc = process(name, sigma_data=sigma_data)
        return proc.c_skip(s), proc.c_out(s), 0.0

    return rule


def _units(factor: float, shift: float) -> Out:
    return lambda s, _: (0 * s, 0 * s + 1 / factor, -shift / factor)


PREDICTIONS: dict[str, Out] = {
    "x0": _of("x0"),
    "epsilon": _of("vp"),
    "v": _of("v"),
    "velocity eps - x0": _of("fm"),
    "EDM's F": _of("edm"),
    "the score": lambda s, _: (0 * s + 1, s * s, 0.0),
    "sigma * epsilon": lambda s, _: (0 * s + 1, 0 * s - 1, 0.0),
}
# What a denoiser may return in other units; not tried for networks with a preconditioning.
OUTPUTS: dict[str, Out] = {
    "2 x0": _units(2.0, 0.0),
    "x0 / 2": _units(0.5, 0.0),
    "x0 in 0..1": _units(0.5, 0.5),
    "127.5 x0": _units(127.5, 0.0),
    "x0 in 0..255": _units(127.5, 127.5),
}


def _converted(predicted: Out, taken_for: Out, sign: int) -> Out:
    """Of a denoiser that was made of a network's output in the wrong way."""

    def rule(s: Any, sigma_data: float) -> tuple[Any, Any, float]:
        skip, gain, _ = predicted(s, sigma_data)
        had_skip, had_gain, _ = taken_for(s, sigma_data)
        ratio = sign * gain / had_gain
        return skip - ratio * had_skip, ratio, 0.0

    return rule


_NETWORKS = ("epsilon", "v", "velocity eps - x0", "EDM's F")
CONVERTED: dict[str, Out] = {
    f"{'minus ' if sign < 0 else ''}{true} (taken for {false})": _converted(
        PREDICTIONS[true], PREDICTIONS[false], sign
    )
    for true in _NETWORKS
    for false in _NETWORKS
    for sign in (1, -1)
    if true != false or sign < 0
}

RULES = {**PREDICTIONS, **OUTPUTS, **CONVERTED}

# --- what goes in ---------------------------------------------------------------------------------

ENTRIES = {
    "x": "ve",
    "x / sqrt(1 + sigma^2)": "vp",
    "x / (1 + sigma)": "fm",
    "x / sqrt(sigma^2 + sigma_data^2)": "edm",
}  # the process of `jstar.noise` that has it


# --- what the network is told ---------------------------------------------------------------------


def ddpm_sigmas(
    steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> NDArray[np.float64]:
    """Noise scales [T] of DDPM's linear schedule, which ADM and the 2023 DiT use too."""
    return _sigmas(np.cumprod(1 - np.linspace(beta_start, beta_end, steps)))


def _sigmas(kept_T: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((1 - kept_T) / kept_T))


def _scaled_linear() -> NDArray[np.float64]:
    """Stable Diffusion's schedule."""
    return _sigmas(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))


def _squared_cosine() -> NDArray[np.float64]:
    """Improved DDPM's (arXiv 2102.09672), its last steps without signal left out."""
    t = np.arange(1001) / 1000
    bar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    return _sigmas(np.cumprod(1 - np.minimum(1 - bar[1:] / bar[:-1], 0.999)))


def step_of(sigma: Tensor, sigma_T: NDArray[np.float64]) -> Tensor:
    """Time step [B] of a noise scale, between two steps linear in ln sigma."""
    log_s = sigma.detach().double().log().cpu().numpy()
    step = np.interp(log_s, np.log(sigma_T), np.arange(len(sigma_T)))
    return torch.as_tensor(step, dtype=torch.float32, device=sigma.device).reshape(sigma.shape)


LINEAR, SD, COSINE = "DDPM's linear schedule", "Stable Diffusion's schedule", "the cosine schedule"
COSINE_T, FLOW, CONTINUOUS = "2 atan(sigma) / pi", "sigma / (1 + sigma)", "VP's continuous time"
# As Stable Diffusion 3 shifts it (arXiv 2403.03206, eq. 23), and back.
SHIFTED, SHIFTED_BACK = "3 sigma / (1 + 3 sigma) (shift 3)", "sigma / (3 + sigma) (shift 1/3)"
GIVEN = "the given schedule"
TABLES = {LINEAR: ddpm_sigmas(), SD: _scaled_linear(), COSINE: _squared_cosine()}
SMOOTH: dict[str, Scale] = {
    COSINE_T: lambda s: s.arctan() * (2 / np.pi),
    FLOW: lambda s: s / (1 + s),
    SHIFTED: lambda s: 3 * s / (1 + 3 * s),
    SHIFTED_BACK: lambda s: s / (3 + s),
    CONTINUOUS: vp_time,
}
RANGED = (COSINE_T, FLOW, SHIFTED, SHIFTED_BACK)  # those that are tried of any network
SIGMA_DATA = (0.25, 0.5, 1.0)  # of EDM's preconditioning, as people set it
STEPS = 1000  # of a smooth time that is told in steps
REVERSED = "from 1 to 0 (reversed)"
UNITS = ("in steps", "from 0 to 1", "in steps, reversed", REVERSED)
# Numbers that have no such range.
DIRECT: dict[str, Scale] = {
    "sigma": lambda s: s,
    "ln(sigma) / 4": lambda s: s.log() / 4,
    "ln(sigma)": lambda s: s.log(),
    "ln(sigma / 2)": lambda s: (s / 2).log(),
    "log SNR": lambda s: -2 * s.log(),
}
LAWS = (*TABLES, *SMOOTH, *DIRECT, GIVEN)


@dataclass(frozen=True)
class Parts:
    """A network and how its adapter claims that it is to be read.

    network: called with (entry x [B, ...], time [B]) and, if there are labels, labels [B]; of
    twice the channels (learned variance) the first half is taken. steps_T: noise scales of the
    steps of GIVEN. rounded: time steps are whole numbers, as a table of them needs.
    """

    network: Network
    claim: NetworkReading
    steps_T: NDArray[np.float64] | None = None
    rounded: bool = False
    steps: int = STEPS  # of a smooth time that is told in steps

    def told(self, reading: NetworkReading, sigma: Tensor) -> Tensor:
        """The number [B] that the network is told at sigma [B]."""
        if reading.law in DIRECT:
            direct: Tensor = DIRECT[reading.law](sigma).float()
            return direct
        reverse, in_steps = "reversed" in reading.unit, "steps" in reading.unit
        if reading.law in SMOOTH:
            time = SMOOTH[reading.law](sigma.double())
            time = 1 - time if reverse else time
            # VP's continuous time belongs to the steps 0...999.
            last = self.steps - 1 if reading.law == CONTINUOUS else self.steps
            time = last * time if in_steps else time
        else:
            table_T = self.table(reading.law)
            last, step = len(table_T) - 1, step_of(sigma, table_T).double()
            time = last - step if reverse else step
            time = time if in_steps else time / len(table_T)
        if self.rounded and in_steps:
            whole: Tensor = time.round().long()
            return whole
        number: Tensor = time.float()
        return number

    def table(self, law: str) -> NDArray[np.float64]:
        """Noise scales of the steps of a schedule."""
        if law != GIVEN:
            return TABLES[law]
        assert self.steps_T is not None
        return self.steps_T

    def raw(
        self, reading: NetworkReading, data: Affine, x: Tensor, sigma: Tensor, labels: Tensor | None
    ) -> Tensor:
        """F of the reading's entry, time and data; its prediction does not matter."""
        own = data.factor * sigma
        s = own.reshape(-1, *[1] * (x.ndim - 1))
        c_in = process(ENTRIES[reading.entry], sigma_data=reading.sigma_data).c_in(s)
        entered = c_in * (data.factor * x + data.shift)
        given = () if labels is None else (labels,)
        return first_half(self.network(entered, self.told(reading, own), *given), x)

    def denoiser(self, reading: NetworkReading, data: Affine | None = None) -> Denoiser:
        """D(x, sigma, labels) of a reading, by default that of the network's own data."""
        units = data or Affine(1.0)

        def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
            out = self.raw(reading, units, x, sigma, labels)
            return decode(reading, units, x, sigma, out)

        return denoise


def decode(reading: NetworkReading, data: Affine, x: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
    """D [B, ...] of a network's output."""
    s = (data.factor * sigma).reshape(-1, *[1] * (x.ndim - 1))
    rule = RULES[reading.prediction]
    skip, gain, shift = rule(s, reading.sigma_data)
    own = skip * (data.factor * x + data.shift) + reading.sign * gain * out + shift
    x0: Tensor = (own - data.shift) / data.factor
    return x0


def first_half(out: Tensor, x: Tensor) -> Tensor:
    """Of twice the channels (learned variance) the first half."""
    twice = out.ndim == x.ndim and out.shape[1:2] == (2 * x.shape[1],)
    return out[:, : x.shape[1]] if twice else out


def inside(denoise: Denoiser, claim: NetworkReading) -> Network:
    """The network of which `denoise` was made, if it was made as `claim` says.

    It is asked at the noise scale whose time is the one wanted, and the conversion is undone.
    """
    parts = Parts(lambda x, t: x, claim)
    grid = torch.logspace(-4, 4, 4001, dtype=torch.float64)
    told = parts.told(claim, grid).double().numpy()
    order = np.argsort(told, kind="stable")

    def network(entered: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        log_s = np.interp(time.double().cpu().numpy(), told[order], grid.log().numpy()[order])
        sigma = torch.as_tensor(np.exp(log_s), dtype=torch.float32, device=entered.device)
        s = sigma.reshape(-1, *[1] * (entered.ndim - 1))
        x = entered / process(ENTRIES[claim.entry], sigma_data=claim.sigma_data).c_in(s)
        skip, gain, _ = RULES[claim.prediction](s, claim.sigma_data)
        out: Tensor = (denoise(x, sigma, labels) - skip * x) / (claim.sign * gain)
        return out

    return network


# The readings of the processes of `jstar.noise`.
OF_PROCESS = {
    "edm": NetworkReading("EDM's F", "x / sqrt(sigma^2 + sigma_data^2)", "ln(sigma) / 4"),
    "vp": NetworkReading("epsilon", "x / sqrt(1 + sigma^2)", CONTINUOUS, "in steps"),
    "x0": NetworkReading("x0", "x / sqrt(1 + sigma^2)", CONTINUOUS, "in steps"),
    "ve": NetworkReading("epsilon", "x", "ln(sigma / 2)", sign=-1),
    "v": NetworkReading("v", "x / sqrt(1 + sigma^2)", COSINE_T, "from 0 to 1"),
    "fm": NetworkReading("velocity eps - x0", "x / (1 + sigma)", FLOW, "from 0 to 1"),
}
OF_PROCESS |= {"edm2": OF_PROCESS["edm"], "sd3": OF_PROCESS["fm"]}
DENOISER = NetworkReading("x0", "x", "sigma")  # a function (x, sigma, labels) -> x0


def table_reading(prediction: str, law: str = GIVEN, unit: str = "in steps") -> NetworkReading:
    """Of a variance-preserving network of time steps."""
    return replace(OF_PROCESS["vp"], prediction=prediction, law=law, unit=unit)
