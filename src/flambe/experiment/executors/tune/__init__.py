"""Ray Tune: the driver of a stage, the trials on their workers, and the nodes that they run on."""
