"""A sub-module that needs what is not installed."""

import heron_of_another_river  # type: ignore[import-not-found]  # noqa: F401
