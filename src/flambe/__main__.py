"""``python -m flambe``: the ``flambe`` command."""

import os
import sys

if __name__ == "__main__":
    # Python would import from the working folder first, which the command itself does not.
    safe_path = getattr(sys.flags, "safe_path", False)  # from Python 3.11 on
    if not safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    from flambe.cli.main import run

    run()
