"""Networks by name: torchvision's classifiers with their layers, image sizes and normalisation, and their checkpoints.

>>> net = ccx.models.load("resnet18", weights="places365", file="resnet18_places365.pth.tar")  # doctest: +SKIP
>>> maps = ccx.probe(net, "photos/")  # its default layer, float32[N, 512, 7, 7]  # doctest: +SKIP

torch and torchvision are imported by the functions that need them.
"""

from ccx.models.checkpoints import read_checkpoint
from ccx.models.named import NamedModel, default_preprocessing, load, names
from ccx.models.preprocessing import Preprocessing

__all__ = ["NamedModel", "Preprocessing", "default_preprocessing", "load", "names", "read_checkpoint"]
