"""The fixture of all commands."""

from tests.support.command_line import data  # noqa: F401 - a fixture of several tests
