"""From a network and data to activations."""

from ccx.probing.running import probe

__all__ = ["probe"]
