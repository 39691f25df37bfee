"""A sub-module that cannot be imported."""

raise RuntimeError("the sub-module is broken")
