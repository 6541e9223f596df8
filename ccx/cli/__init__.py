"""The command line: ``ccx demo``, ``explain``, ``report``, ``show``, ``concepts``."""

from ccx.cli.app import app, main

__all__ = ["app", "main"]
