"""Picture bytes to the crop that a model sees: decode → orient → RGB → resize → crop.

The one definition for training, evaluation, parity, serving and scoring. Given the same RGB picture it equals
torchvision's `Resize` + `CenterCrop` on PIL images bit for bit (tests/inference/test_preprocessing.py).
"""

import hashlib
import io
import logging
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

from inference.errors import ImageEmpty, ImageTooManyPixels, ImageTruncated, ImageUnsupported
from inference.jpeg import MAX_SCANS, too_many_scans

Crop = NDArray[np.uint8]
"""uint8, (height, width, 3), RGB, 0…255: what a model's `images` input holds per picture."""

FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    GifImagePlugin.GifImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    AvifImagePlugin.AvifImageFile.format,
)
"""Pillow's names of the accepted formats; the content decides, never a file name or a MIME type.

Its JPEG reader also takes MPO, the stereo JPEG that phones write.
"""

_JPEGS = (JpegImagePlugin.JpegImageFile.format, MpoImagePlugin.MpoImageFile.format)

MAX_PIXELS = 89_478_485
"""Default limit on width × height, Pillow's own: a quarter of a gibibyte of RGB."""

_STRIP_PIXELS = 1_000_000
"""Pictures of more are brought to RGB in strips of about so many pixels."""

DRAFT = 2
"""A draft's sides are at least so many times `resize`: the resampling filter then still has pixels to weigh."""

_Box = tuple[int, int, int, int]
_Area = tuple[float, float, float, float]

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_WHITE = (255, 255, 255, 255)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture of each EXIF orientation upright."""

_MOVED = {
    Image.Transpose.FLIP_LEFT_RIGHT: (2, 1, 0, 3),
    Image.Transpose.ROTATE_180: (2, 3, 0, 1),
    Image.Transpose.FLIP_TOP_BOTTOM: (0, 3, 2, 1),
    Image.Transpose.TRANSPOSE: (1, 0, 3, 2),
    Image.Transpose.ROTATE_270: (3, 0, 1, 2),
    Image.Transpose.TRANSVERSE: (3, 2, 1, 0),
    Image.Transpose.ROTATE_90: (1, 2, 3, 0),
}
"""Which edge, counted as left, top, right, bottom, becomes the left, top, right and bottom one."""

_SIDEWAYS = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]

# The limit is enforced below, per call, before any pixel is decoded. Pillow's process-wide one only warns up to
# twice its value, and the warning machinery is not thread-safe.
Image.MAX_IMAGE_PIXELS = None

# What Pillow warns and logs about a damaged picture stands in that picture's own answer; on standard error it would
# only hide what the operator must read. A filter set once is also safe where catch_warnings, per call, is not.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class Decoded(NamedTuple):
    """An upright RGB image, and the picture's own width and height, of which a draft has a part.

    A draft's sides are rounded up: `box` (left, top, right, bottom) is where in the image the picture lies.
    """

    image: Image.Image
    size: tuple[int, int]
    box: _Area | None = None

    @property
    def reduced(self) -> bool:
        """Whether the decoder made it smaller."""
        return self.box is not None


class Preprocessing(BaseModel):
    """How a picture becomes a crop, as data: part of every recipe and every manifest.

    `decoder` is `pillow`, or `pillow-draft`: JPEG photos whose sides are at least four times `resize` are decoded at
    1/2, 1/4 or 1/8 of their size, which libjpeg does in the frequency domain. That is faster and needs less memory,
    and the pixels are not quite the same: a model is trained and measured with the decoder that it is served with.

    `resize` is the length of the shorter side in pixels, `crop` the side of the centre square; both are given to
    the resampling filter that `interpolation` names (antialiased, Pillow's convention).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: Literal["pillow", "pillow-draft"] = "pillow"
    orientation: Literal["exif", "ignore"] = Field("exif", description="turn the picture as its EXIF tag says")
    alpha: Literal["white", "drop"] = Field("white", description="what shows through transparent pixels")
    resize: int = Field(256, ge=1, le=4096)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop: int = Field(224, ge=1, le=4096)

    @model_validator(mode="after")
    def _crop_fits(self) -> "Preprocessing":
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}")
        return self

    def __call__(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Crop:
        """Decode one picture and cut out its crop.

        Returns uint8 (crop, crop, 3). Raises `ImageError` and nothing else, whatever the bytes are.
        """
        return self.crop_of(*self.decode(data, max_pixels))

    def decode(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
        """Decode one picture to an upright RGB image; animations give their first frame.

        Raises ImageEmpty, ImageUnsupported, ImageTruncated or ImageTooManyPixels.
        """
        image = _open(data)
        self._check_pixels(image.size, max_pixels)
        if image.format in _JPEGS and too_many_scans(data):
            raise ImageUnsupported(f"the JPEG has more than {MAX_SCANS} scans, which no camera writes; save it anew")
        size = image.size
        try:
            box = _draft(image, DRAFT * self.resize) if self.decoder == "pillow-draft" else None
            image.load()
            turn = _turn(image) if self.orientation == "exif" else None
            if turn is not None:
                box = box and _moved(box, image.size, turn)
                size = size[::-1] if turn in _SIDEWAYS else size
                image = image.transpose(turn)
            return Decoded(_rgb(image, self.alpha), size, box)
        # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, … on damaged pixels.
        except Exception as error:
            raise ImageTruncated(
                f"the {image.format or 'picture'} data is cut short or damaged ({error}); send the whole file"
            ) from error

    def crop_of(self, image: Image.Image, size: tuple[int, int] | None = None, box: _Area | None = None) -> Crop:
        """The centre crop of an RGB image, uint8 (crop, crop, 3); of a draft with `size` and `box`, see `Decoded`."""
        width, height = self._resized(size or image.size)
        resample = Image.Resampling[self.interpolation.upper()]
        if (width, height) != image.size:
            image = image.resize((width, height), resample, box)
        # torchvision's CenterCrop rounds half to even, as Python does.
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        return np.array(image.crop((left, top, left + self.crop, top + self.crop)), dtype=np.uint8)

    def golden_digest(self) -> str:
        """`sha256:` of the crop of a picture made by code: equal digests mean equal preprocessing."""
        encoded = io.BytesIO()
        golden_picture().save(encoded, "PNG")
        return "sha256:" + hashlib.sha256(self(encoded.getvalue()).tobytes()).hexdigest()

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height after the shorter side became `resize` (torchvision truncates the longer one)."""
        width, height = size
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def _check_pixels(self, size: tuple[int, int], max_pixels: int) -> None:
        for what, (width, height) in (("", size), (" once resized", self._resized(size))):
            if width * height > max_pixels:
                raise ImageTooManyPixels(
                    f"the picture has {width} × {height} pixels{what}, the limit is {max_pixels:,}; send a smaller one"
                )


def golden_picture() -> Image.Image:
    """A 403 × 301 RGB picture of gradients and a checkerboard, the same on every machine."""
    y, x = np.mgrid[0:301, 0:403]
    board = ((x // 13 + y // 7) % 2) * 255
    planes = np.stack([x * 255 // 402, y * 255 // 300, board], axis=-1)
    return Image.fromarray(planes.astype(np.uint8))


def _open(data: bytes) -> Image.Image:
    """Read the header. Raises ImageEmpty, ImageUnsupported or ImageTruncated."""
    if not data:
        raise ImageEmpty("the picture has no bytes; send the content of a file")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # as in decode()
        if data.startswith(_SIGNATURES) or data[8:12] == b"WEBP" or data[4:8] == b"ftyp":
            raise ImageTruncated("the picture's header is cut short or damaged; send the whole file") from error
        accepted = ", ".join(FORMATS)
        raise ImageUnsupported(f"the bytes are not a picture in an accepted format ({accepted})") from error


def _draft(image: Image.Image, side: int) -> _Area | None:
    """Have a JPEG decoded smaller, where both sides stay at least `side`; where in it the picture will lie."""
    size = image.size
    drafted = image.draft(None, (side, side))
    return drafted[1] if drafted and image.size != size else None


def _moved(box: _Area, size: tuple[int, int], turn: Image.Transpose) -> _Area:
    """A box in an image of this size, once the image is turned."""
    margins = (box[0], box[1], size[0] - box[2], size[1] - box[3])
    left, top, right, bottom = (margins[edge] for edge in _MOVED[turn])
    width, height = size[::-1] if turn in _SIDEWAYS else size
    return left, top, width - right, height - bottom


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What EXIF says. Pillow's own `exif_transpose` also writes EXIF anew, which other damaged tags make fail."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 – damaged EXIF says nothing about the pixels, which are whole
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _rgb(image: Image.Image, alpha: str) -> Image.Image:
    """Any Pillow mode to RGB: 16-bit keeps its high byte, palette and transparency are resolved.

    Large pictures go strip by strip, since a pixel may take four times its bytes on the way.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    deep = image.mode.startswith("I;16") or image.mode in ("I", "F")
    boxes = _strips(image.size)
    scale = 255 if image.mode == "F" and max(_values(image, box).max() for box in boxes) <= 1 else 1

    def strip(box: _Box) -> Image.Image:
        return _from_deep(_values(image, box), scale) if deep else _without_alpha(_cut(image, box), alpha)

    if len(boxes) == 1:
        return strip(boxes[0])
    rgb = Image.new("RGB", image.size)
    for box in boxes:
        rgb.paste(strip(box), box)
    return rgb


def _strips(size: tuple[int, int]) -> list[_Box]:
    """Boxes of whole rows that make up the picture, each of about `_STRIP_PIXELS`."""
    width, height = size
    rows = max(1, _STRIP_PIXELS // width)
    return [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]


def _cut(image: Image.Image, box: _Box) -> Image.Image:
    return image if box == (0, 0, *image.size) else image.crop(box)


def _without_alpha(image: Image.Image, alpha: str) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if alpha == "white":
            image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _values(image: Image.Image, box: _Box) -> NDArray[Any]:
    values = np.asarray(_cut(image, box))
    return np.nan_to_num(values) if values.dtype.kind == "f" else values


def _from_deep(values: NDArray[Any], scale: int) -> Image.Image:
    """Greyscale of more than 8 bits: Pillow would clip at 255; the high byte of 16 is what a viewer shows."""
    grey = np.clip(values * scale, 0, 255) if values.dtype.kind == "f" else np.clip(values, 0, 65535) >> 8
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
