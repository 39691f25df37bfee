"""Searchers and schedulers of Ray Tune, as flambe runs and resumes them."""
