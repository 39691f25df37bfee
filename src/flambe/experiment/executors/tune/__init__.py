"""Ray Tune: the driver of a stage, its trials on their workers, and the nodes that they run on."""
