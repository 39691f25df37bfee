"""The version of flambe, read by the build and by ``flambe --version``."""

__version__ = "0.1.0"
