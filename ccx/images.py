"""Picture files: the suffixes that are taken for pictures, wherever a folder is listed."""

from __future__ import annotations

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Suffixes of picture files, in small letters."""
