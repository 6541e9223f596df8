"""From a photograph to what a network takes in."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ccx.checks import choice, sides
from ccx.errors import DTypeError, InputError, ShapeError
from ccx.images import open_image, rgb

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESAMPLINGS = ("nearest", "bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocessing:
    """Resize an image as a whole to the network's size and normalise it: ``(value / 255 - mean) / std``.

    Nothing is cropped, as in the published system: concepts are annotated on the whole image, and so an activation
    map must cover the whole image too. Resizing is Pillow's, which averages when it shrinks.

    Parameters
    ----------
    size
        (height, width) of the result, or one number for both.
    mean, std
        Of the channels red, green, blue, on the scale 0 to 1; torchvision's of ImageNet by default.
    resampling
        "nearest", "bilinear" or "bicubic".

    Examples
    --------
    >>> Preprocessing(2, mean=(0.5,) * 3, std=(0.5,) * 3)(np.full((4, 4, 3), 255, np.uint8)).shape  # doctest: +SKIP
    torch.Size([3, 2, 2])

    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resampling: str = "bilinear"

    def __post_init__(self) -> None:
        given: Any = self.size
        pair = given if isinstance(given, (list, tuple)) else (given, given)
        object.__setattr__(self, "size", sides("size", pair, "write 224", "height and width of at least 1"))
        for name in ("mean", "std"):
            given = getattr(self, name)
            try:
                values = tuple(float(value) for value in given if isinstance(value, Real))
            except TypeError:
                values = ()
            good = len(values) == len(given) == 3 and all(np.isfinite(values)) if values else False
            if not good or (name == "std" and min(values) <= 0):
                wanted = f"three {'positive ' if name == 'std' else ''}numbers, for red, green and blue"
                raise InputError(name, wanted=wanted, got=repr(given), remedy="give them on the scale 0 to 1")
            object.__setattr__(self, name, values)
        choice("resampling", self.resampling, _RESAMPLINGS, "leave it out for bilinear")

    def __call__(self, image: Any) -> torch.Tensor:
        """Return float32[3, height, width] of one image.

        Parameters
        ----------
        image
            The path of a picture file (`ccx.images.read_image` says which), a Pillow image of 8 bits per channel, or
            uint8[h, w, 3] or uint8[h, w].

        Raises
        ------
        InputError (DTypeError, ShapeError)
            If it is something else, or a Pillow image with transparent pixels, or with an orientation not applied.
        StoreError
            If the file cannot be read; the message names it.

        """
        import torch

        is_path = isinstance(image, (str, os.PathLike))
        pixels = self._pixels(open_image(image) if is_path else rgb(_as_picture(image), "image"))
        values = pixels.astype(np.float32)
        values /= 255
        values -= np.asarray(self.mean, np.float32)
        values /= np.asarray(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))

    def _pixels(self, picture: Any) -> npt.NDArray[np.uint8]:
        from PIL import Image

        height, width = self.size
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling[self.resampling.upper()])
        return np.asarray(picture)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as JSON-able values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _as_picture(image: Any) -> Any:
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = f"{image.dtype} values" if hasattr(image, "dtype") else type(image).__name__
        remedy = "normalised tensors need no preprocessing; of floats give (255 * image).round().astype(numpy.uint8)"
        raise DTypeError("image", wanted="a picture file, a Pillow image or uint8[h, w, 3]", got=got, remedy=remedy)
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or 0 in image.shape:
        got = f"uint8{list(image.shape)}"
        raise ShapeError("image", wanted="uint8[h, w, 3] or [h, w]", got=got, remedy="put the channels last")
    return Image.fromarray(image)
