"""From a network and data to activations."""

from ccx.listing import picture_files
from ccx.probing.running import probe

__all__ = ["picture_files", "probe"]
