"""Annotated data sets: images for a model and label maps for `Concepts` (docs/datasets.md)."""

from ccx.datasets.broden import Broden
from ccx.datasets.coco import CocoInstances, CocoPanoptic
from ccx.datasets.dataset import Dataset
from ccx.datasets.folder import Folder
from ccx.datasets.pairs import Pairs
from ccx.datasets.tokens import token_concepts

__all__ = ["Broden", "CocoInstances", "CocoPanoptic", "Dataset", "Folder", "Pairs", "token_concepts"]
