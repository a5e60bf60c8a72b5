"""The ladder: every size follows from one dial, the depth."""

from dataclasses import dataclass

from jstar.config import SIZES, LadderEntry, ModelConfig
from jstar.errors import JstarError, nearest


@dataclass(frozen=True)
class DiTConfig:
    """Everything that decides a network's shape. Raises JstarError where the parts do not fit.

    classes: number of labels, 0 for a network without labels.
    classic: the 2023 DiT's block (LayerNorm, biases, no QK-norm; arXiv 2212.09748).
    noise_scale: c_noise is multiplied by it before the sinusoidal embedding; the trainer sets it
        from the process' range of c_noise.
    """

    depth: int
    width: int
    heads: int
    patch: int
    channels: int
    rows: int
    columns: int
    classes: int = 0
    classic: bool = False
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise JstarError(
                f"model: width = {self.width} is not a multiple of the {self.heads} heads"
            )
        if self.width % 4:
            raise JstarError(
                f"model: width = {self.width} is not allowed, 2-D positions need a multiple of 4"
            )
        for axis in (self.rows, self.columns):
            if axis % self.patch:
                raise JstarError(
                    f"model.patch = {self.patch} does not divide images of "
                    f"{self.rows} x {self.columns}"
                )

    @property
    def tokens(self) -> int:
        """Tokens T of one image."""
        return (self.rows // self.patch) * (self.columns // self.patch)

    @property
    def token_dim(self) -> int:
        """Numbers in one patch of the image."""
        return self.channels * self.patch**2

    @property
    def time_features(self) -> int:
        """Sinusoids of the noise embedding: the 2023 DiT's 256, fewer in tiny networks."""
        return min(256, 2 * self.width)


def ladder(
    size: int | str,
    *,
    shape: tuple[int, int, int] = (3, 64, 64),
    patch: int = 4,
    width: int | None = None,
    width_per_depth: int = 64,
    head_width: int = 64,
    classes: int = 0,
    classic: bool = False,
) -> DiTConfig:
    """The network of one rung: `size` is the depth, or one of the names in `SIZES`.

    shape: C, H, W of the images. width: overrides width_per_depth x depth.
    classes: number of labels, 0 for none. Raises JstarError for an unknown name or a misfit.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise JstarError(
                f"model: '{size}' is unknown, allowed are a depth or {', '.join(SIZES)}"
                + nearest(size, SIZES)
            )
        depth, named_width = SIZES[size]
        width = named_width if width is None else width
    else:
        depth = size
    width = width_per_depth * depth if width is None else width
    if width % head_width:
        raise JstarError(
            f"model.head_width = {head_width} does not divide the width {width} of depth {depth}"
        )
    channels, rows, columns = shape
    return DiTConfig(
        depth=depth, width=width, heads=width // head_width, patch=patch, channels=channels,
        rows=rows, columns=columns, classes=classes, classic=classic,
    )  # fmt: skip


def model_config(
    model: ModelConfig, entry: LadderEntry, shape: tuple[int, int, int], classes: int
) -> DiTConfig:
    """The network of a study's ladder entry for images of `shape` (C, H, W) with `classes` labels.

    A study that never shows labels (class_drop 1) builds no label table.
    """
    return ladder(
        entry.depth,
        shape=shape,
        patch=model.patch,
        width=entry.width,
        width_per_depth=model.width_per_depth,
        head_width=model.head_width,
        classes=classes if model.class_drop < 1 else 0,
        classic=model.classic,
    )
