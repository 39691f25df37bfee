"""What must be the same everywhere: extensions and resources."""
