"""What runs the variants of a stage: the interface of executors, and its implementations."""
