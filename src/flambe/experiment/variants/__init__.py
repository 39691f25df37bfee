"""Variants of a stage: options, the values that they expand to, identities, searches."""
