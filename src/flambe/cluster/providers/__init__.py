"""Clusters by where their machines come from; each provider is a folder or a module here."""
