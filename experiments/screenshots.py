"""Photograph the report and the dashboard of a folder of runs, for the site.

    python experiments/screenshots.py runs

Needs Chromium, Node.js and npm, which fetches playwright-core. Writes docs/pictures/report.png and
docs/pictures/tensorboard.png.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lit_compress.cli import main as lit_compress

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
PORT = "6299"
#: Opens an address, waits for a text, and saves what a screen shows.
PHOTOGRAPH = """
const [playwright, executablePath, address, text, path, height] = process.argv.slice(1);
const { chromium } = require(playwright);
(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const viewport = { width: 1200, height: Number(height) };
  const page = await browser.newPage({ viewport });
  await page.goto(address);
  await page.getByText(text).first().waitFor({ state: "attached", timeout: 60000 });
  await page.waitForTimeout(4000);
  await page.screenshot({ path });
  await browser.close();
})().catch((error) => { console.error(String(error)); process.exit(1); });
"""


def photograph(modules: str, address: str, text: str, name: str, height: int) -> None:
    """Save a picture of a page once it shows a text."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or ""
    words = ["node", "-e", PHOTOGRAPH, f"{modules}/playwright-core", browser, address, text]
    subprocess.run([*words, str(PICTURES / name), str(height)], check=True)  # noqa: S603  # ours


def main() -> None:
    """Write both pictures."""
    runs = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        install = ["npm", "install", "--silent", "--prefix", folder, "playwright-core@1"]
        subprocess.run(install, check=True)  # noqa: S603  # our own words
        modules, page = f"{folder}/node_modules", Path(folder) / "report.html"
        lit_compress(["report", "--runs", runs, "--output", str(page)])
        photograph(modules, page.as_uri(), "Layers", "report.png", 1500)
        board = [sys.executable, "-m", "tensorboard.main", "--logdir", runs, "--port", PORT]
        with subprocess.Popen([*board, "--host", "127.0.0.1"]) as server:  # noqa: S603  # ours
            time.sleep(15)
            address = f"http://127.0.0.1:{PORT}/#custom_scalars"
            photograph(modules, address, "channels of each layer", "tensorboard.png", 1000)
            server.terminate()


if __name__ == "__main__":
    main()
