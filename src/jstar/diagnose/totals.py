"""Losses as trainers log them: one number over all noise scales, and per noise scale as x0, eps, v.

J(sigma) is known on a grid. J / sigma^2, the epsilon loss, changes slowly: its logarithm is
interpolated in ln sigma. Below the grid the epsilon loss and above it J keep their last values.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jstar.diagnose.adapters import Adapter
from jstar.diagnose.readings import GIVEN, LINEAR, TABLES
from jstar.noise import Process, process, target_ratio

Floats = NDArray[np.float64]

QUANTILES = 4000  # of a continuous noise law
MIN_SNR = 5.0
TINY = 1e-12  # relative to sigma^2: a loss that is 0 has no logarithm

# Column of diagnosis.csv -> (process, target) of jstar.noise.target_ratio.
UNITS_OF_LOSS = {
    "loss_epsilon": ("vp", "epsilon"),
    "loss_v": ("v", "v"),
    "loss_velocity": ("fm", "velocity"),
}


def in_other_units(sigma_S: Floats, loss_S: Floats) -> dict[str, Floats]:
    """The loss [S] of x0 as a loss of epsilon, v and velocity."""
    return {
        name: loss_S * target_ratio(proc, target, sigma_S)
        for name, (proc, target) in UNITS_OF_LOSS.items()
    }


def interpolated(sigma_S: Floats, loss_S: Floats) -> Callable[[Floats], Floats]:
    """J at any noise scale."""
    log_s = np.log(sigma_S)
    log_e = np.log(np.maximum(loss_S / sigma_S**2, TINY))

    def at(sigma: Floats) -> Floats:
        inside = np.clip(np.log(sigma), log_s[0], log_s[-1])
        # Above the grid J stays, so that J / sigma^2 falls.
        scale = np.minimum(sigma, sigma_S[-1])
        return np.asarray(np.exp(np.interp(inside, log_s, log_e)) * scale**2)

    return at


def totals(sigma_S: Floats, loss_S: Floats, adapter: Adapter) -> dict[str, float]:
    """What trainers would log, by name.

    eps_uniform_t, v_uniform_t, min_snr_5: mean over the time steps of the adapter's schedule (or
    DDPM's linear one); eps_q0 ... eps_q3: quartiles of the steps, as guided-diffusion logs
    them. velocity_uniform_t, velocity_logit_normal: flow matching, and SD3. edm: weighted as EDM
    trains, sigma_data 0.5. x0_uniform_t: the plain loss of x0. own: of the adapter's process.
    """
    at = interpolated(sigma_S, loss_S)
    step_T = steps_of(adapter)
    loss_T = at(step_T)
    eps_T = loss_T / step_T**2
    found = {
        "eps_uniform_t": float(eps_T.mean()),
        "v_uniform_t": float((eps_T * (1 + step_T**2)).mean()),
        "x0_uniform_t": float(loss_T.mean()),
        "min_snr_5": float((np.minimum(1 / step_T**2, MIN_SNR) * loss_T).mean()),
    }
    found |= {f"eps_q{k}": float(part.mean()) for k, part in enumerate(np.array_split(eps_T, 4))}
    for name, proc in (("velocity_uniform_t", "fm"), ("velocity_logit_normal", "sd3"),
                       ("edm", "edm")):  # fmt: skip
        found[name] = expected(process(proc), at)
    if adapter.process is not None and adapter.parts is not None:
        found["own"] = expected(adapter.process, at)
    return found


def expected(proc: Process, at: Callable[[Floats], Floats]) -> float:
    """E[weight(sigma) J(sigma)] under the process's noise law."""
    sigma = np.asarray(proc.law.quantile((np.arange(QUANTILES) + 0.5) / QUANTILES))
    weight: Any = proc.weight(sigma)
    return float((weight * at(sigma)).mean())


def steps_of(adapter: Adapter) -> Floats:
    """Noise scales [T] of the steps that the total runs over."""
    parts = adapter.parts
    if parts is not None and parts.claim.law == GIVEN and parts.steps_T is not None:
        return parts.steps_T
    return TABLES[LINEAR]
