"""From a network and data to activations."""

from ccx.probing.running import probe
from ccx.probing.sources import picture_files

__all__ = ["picture_files", "probe"]
