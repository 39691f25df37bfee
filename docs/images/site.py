"""Make docs/images/site-*.png from the results of ``make demo``, in Chromium.

Run it as ``PYTHONPATH=. .venv/bin/python docs/images/site.py``.
"""

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from flambe.progress import RunFolder
from flambe.report import create_app
from tests.report.served import serving

HERE = Path(__file__).parent
TOKEN = "a-token-for-pictures"
WIDE, PHONE = {"width": 1200, "height": 820}, {"width": 390, "height": 760}
# Name, path, size, colours, and what is moved into view.
PICTURES = [
    ("overview", "/", WIDE, "light", ""),
    ("stage", "/stage/train", WIDE, "light", "#table tr:nth-child(4)"),
    ("stage-dark", "/stage/train", WIDE, "dark", "#parallel"),
    ("variant", "BEST", WIDE, "light", ""),
    ("console", "/console", WIDE, "dark", ""),
    ("downloads", "/downloads", WIDE, "light", ""),
    ("made", "/made", WIDE, "light", ""),
    ("tensorboard", "/tensorboard?stage=train", WIDE, "light", ""),
    ("phone", "/", PHONE, "dark", ""),
]


def main() -> None:
    """Take the pictures."""
    folder = RunFolder(Path("flambe-output/output__digits"))
    variants = [v for v in folder.read_variants().values() if v.stage == "train"]
    if not variants:
        raise SystemExit("run 'make demo' first")
    best = max(variants, key=lambda variant: variant.best or 0.0)
    with serving(create_app(folder.root, token=TOKEN)) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, path, size, colours, shown in PICTURES:
            page = browser.new_page(viewport=size, color_scheme=colours)
            page.goto(f"{base}/?token={TOKEN}")
            page.goto(base + (f"/variant/{best.id}" if path == "BEST" else path))
            page.wait_for_timeout(15_000 if name == "tensorboard" else 4_000)
            if shown:
                page.locator(shown).scroll_into_view_if_needed()
                page.locator(shown).hover()
                page.wait_for_timeout(500)
            save(page.screenshot(), HERE / f"site-{name}.png")
            page.close()
        browser.close()


def save(picture: bytes, path: Path) -> None:
    """Save a picture in 256 colours: a quarter of the bytes, and nobody sees it."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


if __name__ == "__main__":
    main()
