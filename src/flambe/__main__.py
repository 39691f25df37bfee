"""``python -m flambe``: the ``flambe`` command."""

from flambe.cli.main import run

if __name__ == "__main__":
    run()
