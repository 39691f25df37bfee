"""Fakes for the tests of those who build on flambe, and for flambe's own."""

from flambe.testing.fake_connection import FakeConnection, RecordedCommand

__all__ = ["FakeConnection", "RecordedCommand"]
