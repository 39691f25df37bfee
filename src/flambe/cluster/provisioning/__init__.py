"""Provisioning: from machines to hosts that are connected, set up and ready, and back."""
