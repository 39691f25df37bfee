"""The files of a run: its folder, checkpoints, and the buckets and hosts where they are kept."""
