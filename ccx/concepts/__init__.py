"""Concept data sets: `Concepts`, what it is built from, and what must hold of it."""

from ccx.concepts.concepts import FILE_FORMAT, Concepts

__all__ = ["FILE_FORMAT", "Concepts"]
