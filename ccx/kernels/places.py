"""Where arrays lie, main memory or a GPU, and moving them. Nothing of ccx moves an array that was not asked to."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy.typing as npt

from ccx import memory
from ccx.errors import BackendError, InputError
from ccx.kernels.backend import CPU, Backend
from ccx.kernels.conversion import on_gpu


class Place(Protocol):
    """A memory that arrays lie in, and what computes there: `MAIN_MEMORY`, or a GPU (`ccx.kernels.cuda.device`)."""

    @property
    def name(self) -> str:
        """What users call it: "cpu", "cuda:0", "cuda:1" and so on."""

    @property
    def kernels(self) -> Backend:
        """Those that take arrays of this place."""

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """Return an array of main memory as one of this place."""

    def download(self, array: Any) -> npt.NDArray[Any]:
        """Return an array of this place as one of main memory."""

    def synchronize(self) -> None:
        """Wait until arrays are what they should be, for whoever reads them from other threads."""

    def free_bytes(self) -> int | None:
        """Return how much can be allocated, or None where it cannot be told."""


class MainMemory:
    """The host's own memory, to and from which nothing needs to be copied."""

    name = "cpu"
    kernels = CPU

    def upload(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array itself."""
        return array

    def download(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array itself."""
        return array

    def synchronize(self) -> None:
        """Do nothing: the host does one thing after the other."""

    def free_bytes(self) -> int | None:
        """Return the memory available."""
        return memory.available_bytes()


MAIN_MEMORY = MainMemory()


def place_of(array: Any) -> Place:
    """Return where an array of NumPy or CuPy lies."""
    if not on_gpu(array):
        return MAIN_MEMORY
    place: Place = importlib.import_module("ccx.kernels.cuda.device").device_of(array)
    return place


def to_host(array: Any) -> npt.NDArray[Any]:
    """Return an array of NumPy or CuPy as one of NumPy."""
    return place_of(array).download(array) if on_gpu(array) else array


def converted(array: Any, dtype: npt.DTypeLike) -> Any:
    """Return an array of NumPy or CuPy in a dtype, where it lies; itself, if it has it."""
    if not on_gpu(array):
        return array.astype(dtype, copy=False)
    return importlib.import_module("ccx.kernels.cuda.device").device_of(array).contiguous(array, dtype)


def parse_places(device: Any, argument: str = "device") -> list[Place]:
    """Return the places that a user names: "cpu", "cuda", "cuda:1", "cuda:0,cuda:1", or a list of such texts.

    "cuda" is GPU 0.

    Raises
    ------
    InputError
        If it is none of these, or names a place twice.
    MissingExtraError
        If it names a GPU and CuPy is not installed.
    BackendError
        If there is no such GPU.

    """
    parts = device.split(",") if isinstance(device, str) else device
    if not isinstance(parts, (list, tuple)) or not parts or not all(isinstance(part, str) for part in parts):
        raise _no_place(argument, device)
    numbers = [_number(part.strip(), argument, device) for part in parts]
    if len(set(numbers)) < len(numbers) or (len(numbers) > 1 and None in numbers):
        raise _no_place(argument, device)
    return [_place(number, f"{argument}={device!r}") for number in numbers]


def _number(text: str, argument: str, device: Any) -> int | None:
    """Return the number of a GPU; None stands for main memory."""
    kind, colon, number = text.partition(":")
    if text == "cpu":
        return None
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise _no_place(argument, device)
    return int(number) if colon else 0


def _place(number: int | None, purpose: str) -> Place:
    if number is None:
        return MAIN_MEMORY
    cuda = importlib.import_module("ccx.kernels.cuda.device")
    n_gpus = cuda.require_cupy(purpose).cuda.runtime.getDeviceCount()
    if number >= n_gpus:
        gpus = "GPU 0 alone" if n_gpus == 1 else f"GPUs 0 to {n_gpus - 1}"
        msg = f"{purpose}: CuPy finds {gpus}"
        raise BackendError(msg)
    place: Place = cuda.device(number)
    return place


def _no_place(argument: str, device: Any) -> InputError:
    wanted, remedy = '"cpu", "cuda", "cuda:1" or several GPUs, "cuda:0,cuda:1"', "leave it out to follow the arrays"
    return InputError(argument, wanted=wanted, got=repr(device), remedy=remedy)
