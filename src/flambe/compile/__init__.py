"""Configuration to objects: tags, YAML, blueprints, links, component state."""

from flambe.compile import yaml
from flambe.compile.component import Component
from flambe.compile.persistence import load, save
from flambe.compile.registered import MappedRegistrable, Registrable
from flambe.compile.registry import alias, registrable_factory
from flambe.compile.schema import Schema
from flambe.compile.values import Grid, Link, Sample

__all__ = [
    "Component",
    "Grid",
    "Link",
    "MappedRegistrable",
    "Registrable",
    "Sample",
    "Schema",
    "alias",
    "load",
    "registrable_factory",
    "save",
    "yaml",
]
