"""What runs on a host itself: standard library only, for every Python from 3.8 on.

It is shipped as one archive and run by the host's own ``python3``: ``python3 agent.pyz report``.
Each command prints one JSON object, ``follow`` lines. Of the rest of flambe, only ``_nvidia_smi``
is shipped with it.
"""
