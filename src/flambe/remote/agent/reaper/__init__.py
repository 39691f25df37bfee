"""The reaper of a host: it powers off what is idle, or stops what flambe runs there."""
