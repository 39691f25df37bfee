"""The state of components: collected, encoded, written, read and restored."""
