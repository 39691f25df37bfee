"""Draw docs/images/demo.svg from the results of ``make demo``."""

from pathlib import Path

from rich.console import Console

from flambe.cli.display import Display
from flambe.progress import RunFolder

HERE = Path(__file__).parent


def main() -> None:
    """Show the run as the command showed it, and save what is seen."""
    folder = RunFolder(Path("flambe-output/output__digits"))
    run = folder.read_state()
    if run is None:
        raise SystemExit("run 'make demo' first")
    console = Console(record=True, width=92, highlight=False, force_terminal=True)
    console.print("$ make demo")
    display = Display(console)
    display.folder, display.run, display.variants = folder, run, folder.read_variants()
    display.ended()
    console.save_svg(str(HERE / "demo.svg"), title="flambe examples/digits.yaml")


if __name__ == "__main__":
    main()
