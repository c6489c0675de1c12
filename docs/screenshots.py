"""Takes the pictures of report and live page that lie beside this file, in a headless Chromium.

    python3 -m venv /tmp/shots && /tmp/shots/bin/pip install playwright && /tmp/shots/bin/playwright install chromium
    cargo run --release -- pretrain && for seed in 0 1 2; do cargo run --release -- pretrain recipes/three-stages.toml \\
        --set seed=$seed --out runs/three-stages-$seed; done
    /tmp/shots/bin/python docs/screenshots.py runs quickstart three-stages-0 three-stages-1 three-stages-2

CHROMIUM names another browser than playwright's own.
"""

import os
import pathlib
import subprocess
import sys

from playwright.sync_api import sync_playwright

HERE = pathlib.Path(__file__).parent
WIDTHS = {1400: 1000, 390: 844}


def look(browser, name, address, width, dark=False, whole=False):
    """One picture of a page `width` pixels wide; ends where the page is wider or has an error."""
    page = browser.new_page(
        viewport={"width": width, "height": WIDTHS[width]}, color_scheme="dark" if dark else "light"
    )
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    # Curves are drawn once their numbers came.
    page.wait_for_timeout(2500)
    wide = page.evaluate("document.documentElement.scrollWidth")
    if errors or wide > width:
        sys.exit(f"{name}: {wide} pixels wide, errors: {errors}")
    page.screenshot(path=str(HERE / f"{name}.png"), full_page=whole)
    page.close()


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    runs, run, compared = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]
    program = HERE.parent / "target" / "release" / "saltworks"
    command = [program, "serve", runs, "--port", "8390"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as play:
        try:
            address = next(line for line in server.stdout if "http://" in line).split()[-1]
            browser = play.chromium.launch(
                executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox", "--disable-gpu"]
            )
            report = (runs / run / "report.html").as_uri()
            look(browser, "report", report, 1400)
            for width in WIDTHS:
                look(browser, f"report-{width}", report, width, whole=True)
                look(browser, f"live-{width}", address, width, dark=width == 1400)
            ids = "&".join(f"id={name}" for name in compared)
            look(browser, "compare", f"{address}run?{ids}", 1400)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
