"""Annotated data sets: images for a model and label maps for `Concepts` (docs/datasets.md)."""

from ccx.datasets.base import Dataset
from ccx.datasets.broden import Broden
from ccx.datasets.folder import Folder

__all__ = ["Broden", "Dataset", "Folder"]
