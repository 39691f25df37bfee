"""The ``flambe`` command: arguments, output, exit codes; nothing else prints or exits."""

from flambe.cli.main import main

__all__ = ["main"]
