"""A sub-module that only a tag imports."""
