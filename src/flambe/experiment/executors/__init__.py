"""Who runs the variants of a stage, and what runs one."""
