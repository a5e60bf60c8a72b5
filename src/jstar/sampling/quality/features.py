"""Feature networks: a small classifier of the dataset itself, or a TorchScript file.

Inception features mean nothing for 8x8 digits, and their weights cannot be shipped. So by default
the features are those of a small CNN that learns the dataset's own labels. Its values
are comparable within a dataset and a feature id only, never with published FIDs.
"""

import hashlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from jstar.data import Dataset
from jstar.errors import JstarError
from jstar.progress import Progress
from jstar.records import write_atomically

FEATURES = 64  # of the classifier: few enough that 2,000 images know their covariance
WIDTHS = (32, 64, 64, 64)
CLASSIFIER_IMAGES = 48_000  # seen in training
CLASSIFIER_BATCH = 128
HELD_OUT = 10  # every tenth image measures the accuracy and is not trained on
SEED = 20_240_612  # the same network for every study of a dataset
BATCH = 512


@dataclass(frozen=True)
class FeatureNetwork:
    """Images in the data scale, float32 [B, C, H, W] -> features [B, F].

    name: `classifier-` or the file's name, with the first digits of the weights' sha256: values
    of different names must not be compared. accuracy: of a classifier, on images it never saw.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    accuracy: float | None = None

    @torch.inference_mode()
    def __call__(
        self, images_NCHW: NDArray[np.float32], device: torch.device | str = "cpu"
    ) -> NDArray[np.float32]:
        """Features float32 [N, F]."""
        parts = []
        for start in range(0, len(images_NCHW), BATCH):
            part = torch.from_numpy(images_NCHW[start : start + BATCH]).to(device)
            parts.append(self.network(part).float().cpu().numpy())
        return np.concatenate(parts)


class Classifier(nn.Module):
    """3x3 convolutions, halved until about 4x4, one hidden layer: its activations are features.

    `unit` brings their mean square over the data to 1, so that the cubic kernel of KID sees
    numbers of order one, whatever scale the training ended with.
    """

    unit: Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, rows, columns = shape
        halvings = max(1, round(math.log2(min(rows, columns) / 4)))
        layers: list[nn.Module] = []
        for k in range(halvings + 1):
            width = WIDTHS[min(k, len(WIDTHS) - 1)]
            layers += [nn.Conv2d(channels, width, 3, 1 if k == 0 else 2, 1), nn.SiLU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.hidden = nn.Linear(16 * channels, FEATURES)
        self.head = nn.Linear(FEATURES, classes)
        self.register_buffer("unit", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, FEATURES]."""
        out: Tensor = self.unit * F.silu(self.hidden(self.body(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, classes]."""
        logits: Tensor = self.head(self.features(x))
        return logits


def train_classifier(dataset: Dataset, path: Path) -> FeatureNetwork:
    """Train the classifier of a dataset's labels and write it to `path` (.safetensors).

    On the CPU from a fixed seed. Raises JstarError for a dataset without labels.
    """
    classes = dataset.card.classes
    if classes < 2:
        raise JstarError(
            f"sampling.features: the dataset '{dataset.card.name}' has no labels to train a "
            "classifier on, name a TorchScript file or 'pixels' instead"
        )
    network = _fresh(dataset)
    everything = np.arange(len(dataset))
    seen = everything[everything % HELD_OUT != 0]
    steps = CLASSIFIER_IMAGES // CLASSIFIER_BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    picks = np.random.Generator(np.random.Philox(key=[SEED, 0]))
    network.train()
    with Progress("train classifier", CLASSIFIER_IMAGES, "images") as bar:
        for _ in range(steps):
            index = picks.choice(seen, min(CLASSIFIER_BATCH, len(seen)), replace=False)
            loss = F.cross_entropy(
                network(torch.from_numpy(dataset.sampled(index, SEED, index))),
                torch.from_numpy(dataset.labels_N[index]),
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
            bar.advance(CLASSIFIER_BATCH)
    network.eval()
    with torch.no_grad():
        images = torch.from_numpy(dataset.scaled(seen[:: math.ceil(len(seen) / 4096)]))
        unit = network.features(images).square().mean().rsqrt()
        network.unit.copy_(unit)
        network.head.weight.div_(unit)  # the logits stay what they were
    write_atomically(path, lambda p: p.write_bytes(save(network.state_dict())))
    return load_classifier(dataset, path)


def load_classifier(dataset: Dataset, path: Path) -> FeatureNetwork:
    """The classifier that `train_classifier` wrote."""
    network = _fresh(dataset)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise JstarError(f"{path}: is no classifier of '{dataset.card.name}' ({error})") from error
    network.eval().requires_grad_(False)
    index = np.arange(0, len(dataset), HELD_OUT)[:10_000]
    with torch.inference_mode():
        logits = torch.cat(
            [
                network(torch.from_numpy(dataset.scaled(part)))
                for part in np.array_split(index, math.ceil(len(index) / BATCH))
            ]
        )
    accuracy = float((logits.argmax(1).numpy() == dataset.labels_N[index]).mean())

    def features(x: Tensor) -> Tensor:
        return network.to(x.device).features(x)

    return FeatureNetwork(f"classifier-{_digest(path)}", features, accuracy)


def load_script(dataset: Dataset, path: Path) -> FeatureNetwork:
    """A TorchScript network uint8 [B, 3, H, W] -> [B, F]: `inception-2015-12-05.pt` for example.

    Grey images are tripled. Raises JstarError for latents, which no pixel network can look at.
    """
    card = dataset.card
    if card.dtype != "uint8":
        raise JstarError(
            f"sampling.features: {path.name} looks at pixels, the dataset '{card.name}' holds "
            "latents; use 'classifier'"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, ValueError) as error:
        raise JstarError(
            f"{path}: is no TorchScript file ({str(error).splitlines()[0]})"
        ) from error
    script.eval()
    # NVIDIA's file returns class probabilities unless asked for the features.
    asked = {"return_features": True} if "return_features" in str(script.forward.schema) else {}

    def features(x: Tensor) -> Tensor:
        pixels = (x / card.scale + card.offset).round().clamp(0, 255).to(torch.uint8)
        out: Tensor = script.to(x.device)(pixels.expand(-1, 3, -1, -1), **asked)
        return out

    return FeatureNetwork(f"{path.stem}-{_digest(path)}", features)


def quantised(dataset: Dataset, images_NCHW: NDArray[np.float64]) -> NDArray[np.float32]:
    """Generated images as they would be stored: rounded to 0 ... 255 where the data are pixels."""
    card = dataset.card
    if card.dtype != "uint8":
        return images_NCHW.astype(np.float32)
    stored = np.clip(np.round(images_NCHW / card.scale + card.offset), 0, 255)
    return ((stored - card.offset) * card.scale).astype(np.float32)


def _fresh(dataset: Dataset) -> Classifier:
    """The classifier at the start of its training, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Classifier(dataset.card.shape, dataset.card.classes)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
