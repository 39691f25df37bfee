"""One host over SSH: commands, files, tunnels; and the same on many at once."""

from flambe.remote.address import Address
from flambe.remote.connection import Connection
from flambe.remote.gather import each
from flambe.remote.host import Host
from flambe.remote.login import Login
from flambe.remote.result import Result
from flambe.remote.transport import Command, Copy, Transport

__all__ = [
    "Address",
    "Command",
    "Connection",
    "Copy",
    "Host",
    "Login",
    "Result",
    "Transport",
    "each",
]
