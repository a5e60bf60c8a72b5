"""The distribution card: what exactly a model is trained on and J* is computed for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jstar.errors import JstarError
from jstar.records import SEAL, fingerprint, read_json, sealed, write_json


@dataclass(frozen=True)
class Card:
    """Everything that decides the training distribution. Its `id` names that distribution.

    A pixel u (stored unit) is x = (u - offset) * scale in the model's data scale. A *sampled*
    dataset of latents is a mixture of Gaussians N(mean, std^2), one an image: training draws from
    them, and J* must be that of the mixture.
    """

    name: str
    source: str
    count: int
    shape: tuple[int, int, int]  # C, H, W
    dtype: str
    offset: float
    scale: float
    classes: int
    mirror: bool
    holdout: int
    duplicates: int  # images equal to an earlier one
    mean: float  # of x, over images and dimensions
    std: float  # root of the mean over dimensions of the variance of x
    images_sha256: str
    labels_sha256: str
    license: str
    citation: str
    origin: str = ""  # path, or address, the images were read from
    converted: int = 0  # images of another colour mode (grey, CMYK ...) that became RGB
    duplicate_pairs: tuple[tuple[int, int], ...] = ()  # (image, earlier equal one), the first 100
    holdout_duplicates: int = 0  # held-out images that are trained on as well
    sampled: bool = False  # latents: each image is a Gaussian, images.npy its mean
    stds_sha256: str = ""  # of stds.npy, where sampled
    channel_mean: tuple[float, ...] = ()  # latents: taken off each channel before storing
    channel_std: tuple[float, ...] = ()  # latents: each channel was divided by it
    left_out: tuple[tuple[str, int], ...] = ()  # (suffix or reason, files) that were not read
    latents: str = ""  # what latents hold: means, Gaussians, draws; empty for pixels
    encoder: str = ""  # the VAE that made the latents, and the sha256 of its weights
    low: float = 0.0  # the least value of x, of sampled latents of their means
    high: float = 0.0
    channel_means: tuple[float, ...] = ()  # of x, over images and pixels
    images_a_class: tuple[int, int, int] = (0, 0, 0)  # the fewest, the (lower) median, the most
    traits: tuple[tuple[str, int], ...] = ()  # (colour mode that became another, ICC ..., files)
    facts: tuple[tuple[str, str], ...] = ()  # what was recognised: (split, ...), (class, ...)
    holdout_sha256: tuple[tuple[str, str], ...] = ()  # (images, labels or stds, of the held-out)
    source_stamp: str = ""  # of the names, sizes and times of the files that were read

    @property
    def dim(self) -> int:
        """Dimensions D of one image."""
        channels, rows, columns = self.shape
        return channels * rows * columns

    @property
    def id(self) -> str:
        """Fingerprint of the training distribution: equal ids, equal J*."""
        keys = ("images_sha256", "labels_sha256", "shape", "dtype", "offset", "scale", "mirror")
        tree = asdict(self)
        sampled = {"stds_sha256": self.stds_sha256} if self.sampled else {}
        return fingerprint({key: tree[key] for key in keys} | sampled)

    def to_dict(self) -> dict[str, Any]:
        """The card as written to card.json."""
        return {"id": self.id, **asdict(self)}

    def save(self, path: str | Path) -> None:
        write_json(path, sealed(self.to_dict()))

    def checksum(self, split: str, stem: str) -> str:
        """sha256 of the values of images, labels or stds; empty where the card is older."""
        if split == "holdout":
            return dict(self.holdout_sha256).get(stem, "")
        return str(getattr(self, f"{stem}_sha256"))

    @classmethod
    def load(cls, path: str | Path) -> "Card":
        tree = read_json(path)
        stored = tree.pop("id", None)
        tree.pop(SEAL, None)
        try:
            card = cls(**{key: _tuples(value) for key, value in tree.items()})
        except (TypeError, KeyError) as error:
            raise JstarError(f"{path}: is not a distribution card ({error})") from error
        if stored != card.id:
            raise JstarError(
                f"{path}: the card says id {stored}, its content gives {card.id}; "
                "it was edited by hand, run prepare again"
            )
        return card


def _tuples(value: Any) -> Any:
    """JSON has lists where the card has tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def require_same(card_id: str, other_id: str, what: str, other: str) -> None:
    """Refuse to mix training distributions. Raises JstarError."""
    if card_id != other_id:
        raise JstarError(
            f"{what} belongs to training distribution {card_id}, {other} to {other_id}; "
            "J* and losses of different distributions must not be mixed"
        )
