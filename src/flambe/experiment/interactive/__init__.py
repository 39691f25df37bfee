"""Runs in a Python session or a notebook: what shows them, and what reads their results."""
