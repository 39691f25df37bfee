"""What must be the same on every machine: wheels, dependencies, extensions and resources."""
