"""From a network and data to activations."""

from ccx.listing import picture_files
from ccx.probing.recording import probe
from ccx.probing.storing import read_activations

__all__ = ["picture_files", "probe", "read_activations"]
