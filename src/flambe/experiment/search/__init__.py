"""How values are searched: search spaces, searchers and trial schedulers of Ray Tune."""
