"""An exact denoiser, wrapped as every variant there is, has no gap; a perturbed one has its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jstar.diagnose import diagnose, discrete, dit, from_diffusers, preconditioned, sit
from jstar.diagnose.adapters import Adapter, ddpm_sigmas
from jstar.noise import PROCESSES, process

ENOUGH = 1e-4  # relative gap


def raw(exact, proc, shift=0.0):
    """The network F of which `proc` makes the exact denoiser (+ shift), from its two inputs.

    It inverts the preconditioning: x = x_in / c_in and sigma from c_noise, by bisection.
    """

    def network(x_in, c_noise, labels=None):
        sigma = invert(proc.c_noise, c_noise.double())
        s = sigma.reshape(-1, 1, 1, 1)
        x = x_in.double() / proc.c_in(s)
        return ((exact(x, sigma) + shift - proc.c_skip(s) * x) / proc.c_out(s)).float()

    return network


def invert(function, value_B, low=1e-3, high=1e3):
    """sigma with function(sigma) = value, for a monotone function; float64 [B]."""
    low, high = torch.full_like(value_B, low), torch.full_like(value_B, high)
    rises = function(high[:1]) > function(low[:1])
    for _ in range(80):
        middle = (low * high).sqrt()
        above = (function(middle).double() > value_B) == rises
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low * high).sqrt()


def relative_gap(adapter, truth):
    frame = diagnose(adapter, truth, process("edm")).frame
    assert (frame["optimal"] > 0).all()
    return (frame["gap"] / frame["optimal"]).to_numpy()


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_denoiser_as_every_process_has_no_gap(name, exact, truth):
    proc = process(name)
    assert relative_gap(preconditioned(raw(exact, proc), name), truth).max() < ENOUGH


def test_the_exact_denoiser_as_sit_has_no_gap(exact, truth):
    network = raw(exact, process("fm"))
    gap = relative_gap(sit(lambda x, t, *y: -network(x, 1 - t)), truth)
    assert gap.max() < ENOUGH


def test_the_exact_denoiser_as_dit_with_learned_variance_has_no_gap(exact, truth):
    base = discrete(lambda x, t: x, ddpm_sigmas()).process
    network = raw(exact, base)
    adapter = dit(lambda x, t, *y: torch.cat([network(x, t), torch.ones_like(x)], dim=1))
    assert adapter.sigma_min == pytest.approx(0.01, rel=1e-3)
    assert relative_gap(adapter, truth).max() < ENOUGH


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        ("DDPMScheduler", {}),
        ("DDIMScheduler", {"beta_schedule": "scaled_linear"}),
        ("DDPMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        ("DDPMScheduler", {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}),
        ("EulerDiscreteScheduler", {}),
        ("DPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        ("EDMEulerScheduler", {}),
        ("EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction", "sigma_data": 0.7}),
        ("ScoreSdeVeScheduler", {}),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 0.125])
def test_the_exact_denoiser_as_a_diffusers_model(scheduler, options, shift, exact, truth):
    """From the scheduler's own tables: no noise scale or target of jstar.noise is used."""
    diffusers = pytest.importorskip("diffusers", reason="the extra 'latents' is not installed")
    schedule = getattr(diffusers, scheduler)(**options)
    adapter = from_diffusers(exact_model(diffusers, schedule, exact, shift), schedule)
    frame = diagnose(adapter, truth, adapter.process).frame
    assert len(frame) >= 8
    if shift:
        np.testing.assert_allclose(frame["gap"], shift**2, rtol=1e-3)
        np.testing.assert_allclose(frame["offset"], shift**2, rtol=1e-3)
    else:
        assert (frame["gap"] / frame["optimal"]).max() < ENOUGH


def exact_model(diffusers, schedule, exact, shift):
    """A diffusers model that predicts, for its scheduler, what the exact denoiser implies.

    Signal and noise at a time step are taken as diffusers defines them: sqrt(alphas_cumprod),
    1 - t / 1000, EDM's preconditioning, or sigma itself.
    """
    kind, prediction = type(schedule).__name__, schedule.config.get("prediction_type", "epsilon")

    class Exact(diffusers.ModelMixin, diffusers.ConfigMixin):
        config_name = "config.json"

        @diffusers.configuration_utils.register_to_config
        def __init__(self):
            super().__init__()

        def forward(self, sample, timestep, class_labels=None, return_dict=True):
            x, t = sample.double(), timestep.double()
            if kind.startswith("EDM"):
                return self.pack(self.edm(x, t), sample)
            if kind.startswith("ScoreSde"):
                alpha, sigma = torch.ones_like(t), t
            elif kind.startswith("FlowMatch"):
                alpha, sigma = 1 - t / 1000, t / 1000
            else:
                kept = schedule.alphas_cumprod.double()
                kept = kept[kept > 0]  # a step without signal has no noise scale
                log_s = 0.5 * torch.log((1 - kept) / kept)
                low = t.floor().long().clamp(0, len(kept) - 2)
                scale = torch.exp(torch.lerp(log_s[low], log_s[low + 1], t - low))
                alpha = 1 / (1 + scale**2).sqrt()
                sigma = alpha * scale
            a, s = alpha.reshape(-1, 1, 1, 1), sigma.reshape(-1, 1, 1, 1)
            x0 = exact(x / a, sigma / alpha) + shift
            noise = (x - a * x0) / s
            out = {"epsilon": noise, "sample": x0, "v_prediction": a * noise - s * x0}[prediction]
            if kind.startswith("FlowMatch"):
                out = noise - x0
            if kind.startswith("ScoreSde"):
                out = -noise / s
            return self.pack(out, sample)

        def edm(self, x, t):
            sigma = torch.exp(4 * t)
            s = sigma.reshape(-1, 1, 1, 1)
            noisy = x * (s**2 + schedule.config.sigma_data**2).sqrt()
            x0 = exact(noisy, sigma) + shift
            zero, one = (schedule.precondition_outputs(noisy, v, s) for v in (0 * x, 0 * x + 1))
            return (x0 - zero) / (one - zero)

        def pack(self, out, like):
            return (out.to(like.dtype),)

    return Exact()


@pytest.mark.parametrize("name", ["vp", "edm", "fm"])
def test_a_known_perturbation_is_the_gap_at_every_noise_scale(name, exact, truth):
    network = raw(exact, process(name), shift=0.125)
    found = diagnose(preconditioned(network, name), truth, process(name))
    np.testing.assert_allclose(found.frame["gap"], 0.125**2, rtol=1e-3)
    np.testing.assert_allclose(found.frame["offset"], 0.125**2, rtol=1e-3)
    difference = found.frame["difference"] - found.frame["gap"]
    error = np.hypot(found.frame["loss_se"], found.frame["optimal_se"])
    assert (difference.abs() < 4 * error).all()


def test_a_scaled_output_has_that_slope_and_gap(exact, truth):
    mean = torch.from_numpy(truth.mean_CHW)
    adapter = Adapter("scaled", lambda x, s, y: mean + 0.8 * (exact(x, s) - mean))
    frame = diagnose(adapter, truth, process("edm")).frame
    np.testing.assert_allclose(frame["slope"], 0.8, atol=1e-3)
    best = [np.square(truth.oracle.posterior_mean(s) - truth.mean_CHW).mean() for s in range(11)]
    np.testing.assert_allclose(frame["gap"], 0.04 * np.array(best), rtol=1e-3)


def test_scales_a_denoiser_was_not_made_for_are_left_out(exact, truth):
    adapter = replace(Adapter("narrow", exact), sigma_min=0.1, sigma_max=10.0)
    sigma = diagnose(adapter, truth, process("edm")).frame["sigma"]
    assert sigma.min() >= 0.1
    assert sigma.max() <= 10
