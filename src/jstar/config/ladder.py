"""The models that are trained: what all sizes share, and the ladder of sizes."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from jstar.config.base import Name, Part, Positive, PositiveInt, Seed
from jstar.config.choices import SIZES
from jstar.config.train import Variant
from jstar.errors import closest, nearest


class ModelConfig(Part):
    """What all sizes of the ladder share; the depth of each is its one dial."""

    patch: PositiveInt = Field(2, description="pixels on a side of a token")
    width_per_depth: PositiveInt = Field(64, description="width = width_per_depth x depth")
    head_width: PositiveInt = Field(64, description="width of one attention head")
    class_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="share of labels replaced by 'no label'; 1 trains without labels"
    )
    classic: bool = Field(False, description="the 2023 DiT block: LayerNorm, no QK-norm")


class LadderEntry(Part):
    """One size of the ladder. A published name, dit-120m to dit-1.5b, says depth and width."""

    name: Name = Field(description="name of the size, for example dit-120m")
    depth: Annotated[int, Field(ge=1, le=128)] = Field(
        description="number of blocks: the dial; may be left out under a published name"
    )
    width: PositiveInt | None = Field(None, description="width, if not width_per_depth x depth")
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        [0], description="seeds; one training run each"
    )
    images: PositiveInt | None = Field(None, description="length of this size's runs in images")
    flops: Positive | None = Field(None, description="length of this size's runs in FLOPs")
    batch: PositiveInt | None = Field(None, description="images in an optimiser step of this size")
    learning_rate: Positive | None = Field(
        None,
        description="of this very size, not tuned; default: what tune chooses, or without it "
        "train.learning_rate by the width rule",
    )
    variant: Variant | None = Field(
        None, description="another training process for this entry: process, noise_mean, …"
    )

    def training(self, width: int) -> dict[str, Any]:
        """What this entry, of that width, changes in the keys of `train`."""
        own: dict[str, Any] = dict(self.variant) if self.variant is not None else {}
        if self.images is not None or self.flops is not None:
            own |= {"images": self.images, "flops": self.flops}
        if self.batch is not None:
            own["batch"] = self.batch
        if self.learning_rate is not None:
            own |= {"learning_rate": self.learning_rate, "learning_rate_width": width}
        return own

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("depth"))

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        """Depth and width of a published name, where the entry says neither."""
        if not isinstance(values, dict) or "name" not in values or "depth" in values:
            return values
        name = str(values["name"])
        if any(closest(str(key), cls.model_fields) == "depth" for key in values):
            return values  # a misspelt depth is not a missing one
        if name not in SIZES:
            raise ValueError(
                f"depth is missing: '{name}' is none of the published sizes {', '.join(SIZES)}"
                + nearest(name, SIZES)
            )
        depth, width = SIZES[name]
        return {"width": width, **values, "depth": depth}
