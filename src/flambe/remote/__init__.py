"""One host over SSH: commands, files, tunnels; and the same on many at once."""

from flambe.remote.address import Address
from flambe.remote.connection import Connection, Login
from flambe.remote.gather import each
from flambe.remote.host import Host
from flambe.remote.result import Result

__all__ = ["Address", "Connection", "Host", "Login", "Result", "each"]
