"""What lets several searches of Tune run in one driver, and share the slots of one Ray."""
