"""Checks of a configuration that need nothing built."""
