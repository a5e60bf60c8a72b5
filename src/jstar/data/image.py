"""One encoded image to pixels, with nothing left to the image library's guesses."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from jstar.data.crop import centre_crop
from jstar.errors import JstarError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
PNG_MAGIC, PNG_DEPTH_BYTE = b"\x89PNG\r\n\x1a\n", 24
# What Pillow raises of files that are no whole images, found by changing bytes at random.
DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, OverflowError,
    struct.error, zlib.error,
)  # fmt: skip
TIFF_BITS, EXIF_ORIENTATION = 258, 274  # tags
# What is counted of the files: modes that became another, and what is stated but not applied.
MODES = {
    "L": "grey", "CMYK": "CMYK", "P": "palette", "PA": "palette", "RGBA": "transparent",
    "LA": "transparent", "1": "black and white", "YCbCr": "YCbCr", "LAB": "LAB", "HSV": "HSV",
}  # fmt: skip
TURNED, PROFILE = "EXIF orientation", "ICC profile"
UNAPPLIED = (TURNED, PROFILE)


@dataclass(frozen=True)
class Decoding:
    """How image files become pixels.

    channels: 3 (grey images become three equal channels) or 1 (grey images only).
    size: side of the centre crop; None keeps the image as it is.
    convert: turn CMYK, palette and transparent images into RGB as ADM does, instead of refusing.
    max_pixels: of the file's image, before the crop; a larger one is not decoded.
    """

    channels: int = 3
    size: int | None = None
    convert: bool = False
    max_pixels: int = 100_000_000

    @property
    def max_bytes(self) -> int:
        """No file of an image so large need be longer: four bytes a pixel, and a megabyte."""
        return 4 * self.max_pixels + (1 << 20)

    def __call__(self, data: bytes, name: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """Pixels uint8 [C, H, W], and what the report counts of the file. Raises JstarError."""
        if data[:8] == PNG_MAGIC and len(data) > PNG_DEPTH_BYTE and data[PNG_DEPTH_BYTE] == 16:
            raise JstarError(f"{name}: has 16 bits a channel, allowed are 8")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > self.max_pixels:
                    raise JstarError(
                        f"{name}: is {image.width}x{image.height} pixels, dataset.max_pixels "
                        f"allows {self.max_pixels}"
                    )
                if image.format == "TIFF":
                    _check_tiff(image, name)
                wanted = self._mode(image.mode, name)
                traits = _traits(image, wanted)
                if isinstance(image, ImageFile.ImageFile):
                    image.decodermaxblock = len(data)  # in one go: by the piece costs copies
                image.load()
                ready = image.convert(wanted) if image.mode != wanted else image
                if self.size is not None:
                    ready = centre_crop(ready, self.size)
                pixels = np.asarray(ready)
        except Image.DecompressionBombError as error:
            raise JstarError(f"{name}: is too large to be an image of a dataset") from error
        except DAMAGE as error:
            raise JstarError(f"{name}: is not a whole {'/'.join(FORMATS)} image") from error
        if self.channels == 1:
            return pixels[None], traits
        return pixels.transpose(2, 0, 1), traits

    def _mode(self, found: str, name: str) -> str:
        """The mode to decode to; grey to RGB is exact, everything else must be asked for."""
        wanted = "L" if self.channels == 1 else "RGB"
        exact = ("L",) if self.channels == 1 else ("RGB", "L")
        if found in exact or (self.convert and self.channels == 3 and found[0] not in "IF"):
            return wanted
        raise JstarError(
            f"{name}: has the colour mode {found}, allowed are 8-bit {' and '.join(exact)}"
        )


def _traits(image: Image.Image, wanted: str) -> tuple[str, ...]:
    """The colour mode that is converted, and what the file says that is not applied."""
    found = []
    if image.mode != wanted:
        found.append(MODES.get(image.mode, image.mode))
    # Pillow turns a TIFF itself.
    if "exif" in image.info and image.format != "TIFF":
        try:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9)
        except DAMAGE:  # of the EXIF block: the pixels may be whole
            turned = False
        if turned:
            found.append(TURNED)
    if "icc_profile" in image.info:
        found.append(PROFILE)
    return tuple(found)


def _check_tiff(image: Any, name: str) -> None:
    """Refuse what Pillow would read a part of: the high bytes, or the first page."""
    if max(image.tag_v2.get(TIFF_BITS, (1,))) > 8:
        raise JstarError(
            f"{name}: has {max(image.tag_v2[TIFF_BITS])} bits a channel, allowed are 8"
        )
    if image.n_frames > 1:
        raise JstarError(f"{name}: holds {image.n_frames} pages, allowed is one image a file")
