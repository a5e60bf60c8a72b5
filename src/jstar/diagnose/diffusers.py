"""Adapters of diffusers models and pipelines (optional extra `latents`)."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jstar.diagnose.adapters import Adapter, assembled, discrete
from jstar.diagnose.readings import OF_PROCESS, REVERSED, Network, NetworkReading, Parts
from jstar.errors import JstarError
from jstar.noise import process

SCHEDULES = "schedulers with alphas_cumprod, FlowMatch*, EDM* and ScoreSdeVe"
# How the pipelines of flow-matching transformers tell them the scheduler's time t of 0...1000, and
# the sign of what is returned (their __call__ in diffusers 0.42); FLOW_TIME: all others, t itself.
FLOW_TIME = ("in steps", 1)
FLOW_TIMES = {
    "AuraFlowTransformer2DModel": ("from 0 to 1", 1),
    "Lumina2Transformer2DModel": (REVERSED, -1),
    "LuminaNextDiT2DModel": (REVERSED, -1),
    "HiDreamImageTransformer2DModel": ("in steps", -1),
}


def from_diffusers(
    model: nn.Module, scheduler: Any, *, rounded: bool = False, **inputs: Any
) -> Adapter:
    """Adapter of a diffusers model (UNet2DModel, DiTTransformer2DModel ...) and its scheduler.

    The scheduler says what the model predicts (epsilon, v_prediction, sample, flow or EDM's F)
    and which time step belongs to a noise scale; sampling settings are not used. inputs: further
    arguments of the model, one row (it is repeated for the batch), such as encoder_hidden_states.
    rounded: time steps are whole numbers, where the model has a table of them.
    Raises JstarError for a scheduler that it does not know.
    """
    config, kind = scheduler.config, type(scheduler).__name__
    network = _network(model.eval(), inputs)
    prediction = config.get("prediction_type", "epsilon")
    # UniPC, DPM-Solver ... with flow_prediction hold tables of another process beside it.
    if kind.startswith("FlowMatch") or prediction == "flow_prediction":
        unit, sign = FLOW_TIMES.get(type(model).__name__, FLOW_TIME)
        claim = replace(OF_PROCESS["fm"], unit=unit, sign=sign)
        parts = Parts(network, claim, steps=int(config["num_train_timesteps"]))
        made = assembled(parts, process("fm"))
    elif getattr(scheduler, "alphas_cumprod", None) is not None:
        kept_T = np.asarray(scheduler.alphas_cumprod, dtype=np.float64)
        with np.errstate(divide="ignore"):
            made = discrete(network, np.sqrt((1 - kept_T) / kept_T), prediction, rounded=rounded)
    elif kind.startswith("EDM"):
        if prediction not in ("epsilon", "v_prediction"):
            raise JstarError(
                f"{kind}: prediction_type = '{prediction}' is not allowed, only epsilon and "
                "v_prediction are"
            )
        sigma_data, sign = float(config["sigma_data"]), 1 if prediction == "epsilon" else -1
        claim = replace(OF_PROCESS["edm"], sigma_data=sigma_data, sign=sign)
        made = assembled(Parts(network, claim), process("edm", sigma_data=sigma_data))
        made = _within(made, config)
    elif kind == "ScoreSdeVeScheduler":
        # The model is given sigma itself and predicts the score, (D - x) / sigma^2.
        made = assembled(Parts(network, NetworkReading("the score", "x", "sigma")), process("ve"))
        made = _within(made, config)
    else:
        raise JstarError(f"scheduler: {kind} is unknown, allowed are {SCHEDULES}")
    labelled = _class_argument(model) and _classes(model) > 0
    return replace(made, name=f"{type(model).__name__} with {kind}", conditional=labelled)


def from_pipeline(folder: str | Path, device: str = "cpu") -> Adapter:
    """Adapter of the pipeline in a local folder, `save_pretrained` wrote it. Downloads nothing."""
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise JstarError(
            "diffusers: is not installed, install it with: pip install 'jstar[latents]'"
        ) from error
    if not (Path(folder) / "model_index.json").is_file():
        raise JstarError(f"{folder}: is not a diffusers pipeline, it holds no model_index.json")
    try:
        load: Any = DiffusionPipeline.from_pretrained  # untyped
        pipeline = load(str(folder), local_files_only=True)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JstarError(f"{folder}: the pipeline cannot be loaded ({line})") from error
    parts = pipeline.components
    model = parts.get("unet") or parts.get("transformer")
    if model is None or parts.get("scheduler") is None:
        raise JstarError(
            f"{folder}: needs a scheduler and a unet or transformer, found are {', '.join(parts)}"
        )
    return from_diffusers(model.to(device), parts["scheduler"])


def _within(made: Adapter, config: Any) -> Adapter:
    return replace(made, sigma_min=float(config["sigma_min"]), sigma_max=float(config["sigma_max"]))


def _class_argument(model: nn.Module) -> bool:
    return "class_labels" in inspect.signature(model.forward).parameters


def _classes(model: Any) -> int:
    """Number of classes that a model is told; 0 for none."""
    config = model.config
    return int(config.get("num_class_embeds") or config.get("num_embeds_ada_norm") or 0)


def _network(model: nn.Module, inputs: dict[str, Any]) -> Network:
    """The model as F(x, step, labels)."""

    def call(x: Tensor, step: Tensor, *labels: Tensor) -> Tensor:
        rows = {
            name: value.expand(len(x), *value.shape[1:]) if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
        if labels and labels[0].is_floating_point():
            rows["encoder_hidden_states"] = labels[0]  # a prompt, jstar.diagnose.prompts
        elif labels and _class_argument(model):
            rows["class_labels"] = labels[0]
        out: Tensor = model(x, timestep=step, return_dict=False, **rows)[0]
        return out

    return torch.no_grad()(call)
