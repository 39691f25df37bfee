"""The environment of a cluster: the same code, dependencies and interpreter on every host."""
