"""Images: reading, cropping, resizing, and the source of those that lie in memory."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from PIL import Image

from flowmaps.data import _random
from flowmaps.errors import MissingError, UsageError

GREY_MODES = ("1", "L", "LA")
"""PIL's modes of one channel (and transparency); every other mode of 8 bits becomes RGB."""
LARGEST = -1
"""The crop that is the largest centred square."""


@dataclass(frozen=True)
class Images:
    """A source of images in memory."""

    pixels: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    flip: bool = False
    """Mirror images left to right with probability one half, drawn from (seed, epoch, index)."""
    white: int = 255
    """The pixel value that becomes 1; 0 becomes -1."""
    spread: bool = False
    """Add to each pixel a number of [-1/2, 1/2), drawn from (seed, epoch, index)."""

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        pixels = self.pixels[indices]
        if self.flip:
            pixels = mirrored(pixels, flips(indices, seed, epoch))
        x1 = unit(pixels, self.white)
        if self.spread:
            x1 = x1 + within_level(x1.shape, indices, seed, epoch) / np.float32(self.white / 2)
        return {"x1": x1, "label": self.labels[indices].astype(np.int32)}


def unit(pixels: UInt8[np.ndarray, "*shape"], white: int = 255) -> Float32[np.ndarray, "*shape"]:
    """Pixels 0..white as [-1, 1]."""
    return pixels.astype(np.float32) / np.float32(white / 2) - np.float32(1)


def to_uint8(x: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Images in [-1, 1] as bytes: 127.5 x + 128 cut to [0, 255] and truncated, the convention of EDM and MeanFlow.

    What is not a number becomes black.
    """
    return np.clip(127.5 * np.nan_to_num(x, nan=-2, posinf=2, neginf=-2) + 128, 0, 255).astype(np.uint8)


def flips(indices: Int[np.ndarray, " n"], seed: int, epoch: int | Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which rows are mirrored, drawn from (seed, epoch, index)."""
    return _random.coins(_random.keys(seed, epoch, indices))


def within_level(
    shape: tuple[int, ...], indices: Int[np.ndarray, " n"], seed: int, epoch: int | Int[np.ndarray, " n"]
) -> Float32[np.ndarray, "n h w c"]:
    """Numbers of [-1/2, 1/2) for images of `shape` [n, h, w, c], drawn from (seed, epoch, index)."""
    draws = _random.uniforms(_random.keys(seed, epoch, indices), int(np.prod(shape[1:])))
    return (draws.reshape(shape) - 0.5).astype(np.float32)


def mirrored(pixels: UInt8[np.ndarray, "n h w c"], which: Bool[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
    """The images, those of `which` mirrored left to right."""
    return np.where(which[:, None, None, None], pixels[:, :, ::-1], pixels)


def read(content: bytes, name: Any, *, channels: int = 0, crop: int = 0, size: int = 0) -> Image.Image:
    """The image in the bytes of a file, cropped and resized, in mode L or RGB.

    channels: 1 (grey), 3, or 0 for what the file has; what is transparent becomes white. crop: the side of the
    centred square cut out first (LARGEST: the largest one; 0: none). size: the side to resize to (bilinear,
    antialiased, as is usual for CelebA; 0: none). Raises UsageError that names `name`.
    """
    image = _decoded(content, name)
    grey = image.mode in GREY_MODES if channels == 0 else channels == 1
    return resized(cropped(_opaque(image).convert("L" if grey else "RGB"), name, crop), name, size)


def read_image(path: str | Path, shape: tuple[int, int, int]) -> Float32[np.ndarray, "h w c"]:
    """The image file as an example of `shape`, in [-1, 1]: its largest centred square, resized.

    Raises MissingError where there is no file, UsageError where it is no image or `shape` is not square.
    """
    height, width, channels = shape
    if height != width:
        raise UsageError(f"{path} cannot be made an example of {height}x{width}: sample.start takes square images")
    if not Path(path).is_file():
        raise MissingError(f"there is no image {str(path)!r}")
    return unit(pixels(read(Path(path).read_bytes(), path, channels=channels, crop=LARGEST, size=height)))


def pixels(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """An image of mode L or RGB as an array."""
    values = np.asarray(image)
    return values[:, :, None] if values.ndim == 2 else values


def cropped(image: Image.Image, name: Any, side: int) -> Image.Image:
    """The centred square; on an odd margin the left and the upper one are the smaller."""
    side = min(image.size) if side == LARGEST else side
    if side == 0:
        return image
    if not 0 < side <= min(image.size):
        raise UsageError(f"{name} is {_size(image)}: it has no square of side {side}; choose a smaller crop")
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, upper, left + side, upper + side))


def resized(image: Image.Image, name: Any, side: int) -> Image.Image:
    """The square image with `side` pixels a side."""
    if side in (0, image.width) and side in (0, image.height):
        return image
    if image.width != image.height:
        raise UsageError(f"{name} is {_size(image)}, not square: set crop ({LARGEST}: the largest square)")
    return image.resize((side, side), Image.Resampling.BILINEAR)


def channels(file: io.BufferedIOBase, name: Any) -> int:
    """1 (grey) or 3, read from an image file's header. Raises UsageError that names `name`."""
    return 1 if _opened(file, name).mode in GREY_MODES else 3


def _opened(file: io.BufferedIOBase, name: Any) -> Image.Image:
    try:
        image = Image.open(file)
    except Exception as error:  # whatever a decoder meets in a broken file
        reason = str(error).partition("<")[0].strip()  # not the buffer that PIL names
        raise UsageError(f"{name} is not a readable image: {reason}") from error
    if image.mode.startswith(("I", "F")):
        raise UsageError(f"{name} has pixels of more than 8 bits (mode {image.mode}): convert it to 8 bits")
    return image


def _decoded(content: bytes, name: Any) -> Image.Image:
    image = _opened(io.BytesIO(content), name)
    try:
        image.load()
    except Exception as error:
        raise UsageError(f"{name} is a broken image: {error}") from error
    return image


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
