"""Texts in many languages."""

from language.catalogues import Catalogues

__all__ = ["Catalogues"]
