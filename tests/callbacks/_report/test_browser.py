"""TensorBoard in a real browser: it opens on the curves of this package, without an error."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, FilterPruning

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
#: Opens an address, waits for texts, and prints console errors and requests to other hosts.
LOOK = """
const [playwright, executablePath, address, ...texts] = process.argv.slice(1);
const { chromium } = require(playwright);
(async () => {
  const args = ["--no-sandbox", "--disable-background-networking", "--disable-quic"];
  const browser = await chromium.launch({ executablePath, args });
  const page = await browser.newPage({ viewport: { width: 1400, height: 1000 } });
  const seen = { errors: [], foreign: [] };
  page.on("console", (one) => one.type() === "error" && seen.errors.push(one.text()));
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("request", (one) => {
    if (new URL(one.url()).origin !== new URL(address).origin && !one.url().startsWith("data:"))
      seen.foreign.push(one.url());
  });
  await page.goto(address);
  for (const text of texts)
    await page.getByText(text).first().waitFor({ state: "attached", timeout: 30000 });
  console.log(JSON.stringify(seen));
  await browser.close();
})().catch((error) => { console.error(String(error)); process.exit(1); });
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no Chromium is installed"),
]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard over one pruned run."""
    folder = tmp_path_factory.mktemp("board")
    pruning = FilterPruning(0.5, schedule=Schedule(first=1, last=3))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=6,
        callbacks=[pruning, CompressionReport("my_acc")],
        logger=TensorBoardLogger(folder, name="digits"),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(ForeignModule(), loader(128), loader(64, 1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    words += ["--port", str(port), "--host", "127.0.0.1", "--load_fast", "false"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/data/runs")
            yield address
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    """Wait until a server has read the run."""
    for _ in range(120):
        try:
            with urlopen(address) as answer:  # noqa: S310  # our own server
                if b"digits" in answer.read():
                    return
        except URLError:
            pass
        time.sleep(0.5)
    pytest.fail(f"{address} gave no run within a minute")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of playwright-core, whose locators look into TensorBoard's shadow DOM."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm, which fetches playwright-core, is not installed")
    folder = tmp_path_factory.mktemp("npm")
    words = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
    done = subprocess.run(
        [*words, "playwright-core@1"], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip(f"playwright-core cannot be fetched: {done.stderr[:200]}")
    return folder / "node_modules"


@pytest.mark.parametrize(
    ("tab", "shown"),
    [
        ("timeseries", ["compress/channels/net.0", "compress/epoch_seconds"]),
        ("custom_scalars", ["metric and share pruned", "channels of each layer"]),
        ("images", ["compress/kept_channels", "compress/metric_over_epochs"]),
        ("histograms", ["compress/weights/net.0"]),
        ("hparams", ["FilterPruning target", "FilterPruning reached"]),
    ],
)
def test_every_tab_shows_what_the_run_logged(
    board: str, modules: Path, tab: str, shown: list[str]
) -> None:
    words = ["node", "-e", LOOK, str(modules / "playwright-core"), BROWSER, f"{board}/#{tab}"]
    done = subprocess.run(
        [*words, *shown], capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stderr
    assert json.loads(done.stdout) == {"errors": [], "foreign": []}
