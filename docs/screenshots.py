"""Take the pictures in docs/images again, from the real web UI.

After `make demo` and with `make up` running:

    pip install playwright && python docs/screenshots.py http://127.0.0.1:3000

It drives the system's Chromium, headless; nothing of it is needed to run or test datops.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright  # type: ignore[import-not-found]

IMAGES = Path(__file__).parent / "images"
QUIET = (
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PICTURES = {
    "asset-graph": (
        "/assets/gold/product_performance?view=lineage&lineageScope=upstream&lineageDepth=5",
        1000,
    ),
    "bronze-asset": ("/assets/bronze/shop/orders", 1340),
    "failed-check": ("/assets/silver/shop/orders?view=checks", 600),
    "sensor-ticks": ("/locations/datops/sensors/shop_files", 900),
}
"""Page and height of each."""
OF_A_STREAM = {
    "stream-lag": ("/assets/bronze/bakery/orders", 1150),
    "stream-columns": ("/assets/bronze/bakery/orders?view=events", 960),
    "stream-sensor": ("/locations/datops/sensors/bakery_changes", 900),
}
"""Those of the stream of docs/tutorials/cdc.md: `python docs/screenshots.py URL stream`."""
DRAWN_MS = 8_000


def main() -> None:
    """Write one PNG a picture."""
    base = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(QUIET))
        page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
        wanted = OF_A_STREAM if "stream" in sys.argv[2:] else PICTURES
        for number, (name, (path, height)) in enumerate(wanted.items()):
            page.set_viewport_size({"width": 1400, "height": height})
            page.goto(base + path)
            page.wait_for_timeout(DRAWN_MS)
            if number == 0:
                page.get_by_text("Hide navigation").click()
            if name == "sensor-ticks":
                _open_last_tick(page)
            if name == "stream-lag":
                page.get_by_text("Plots").click()
                page.wait_for_timeout(3_000)
            page.wait_for_timeout(1_000)
            page.screenshot(path=str(IMAGES / f"{name}.png"))
        browser.close()


def _open_last_tick(page: Page) -> None:
    page.get_by_text("0 runs requested").last.click()
    page.wait_for_timeout(1_500)


if __name__ == "__main__":
    main()
