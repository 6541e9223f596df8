"""The version, also written into results."""

VERSION = "0.1.0"
