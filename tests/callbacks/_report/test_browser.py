"""TensorBoard in a real browser: it opens on the curves of this package, without an error."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize(
    ("tab", "shown"),
    [
        ("timeseries", ["compress/reached", "compress/channels/net.0", "compress/epoch_seconds"]),
        ("custom_scalars", ["metric and share pruned", "channels of each layer"]),
        ("images", ["compress/kept_channels", "compress/metric_over_epochs"]),
        ("histograms", ["compress/weights/net.0"]),
        ("hparams", ["FilterPruning target", "FilterPruning reached"]),
    ],
)
def test_every_tab_shows_what_the_run_logged(
    board: str, tab: str, shown: list[str], tmp_path: Path
) -> None:
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    words += ["--disable-background-networking", f"--user-data-dir={tmp_path}"]
    words += ["--virtual-time-budget=30000", "--dump-dom", f"{board}/#{tab}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert not [name for name in shown if name not in done.stdout]
    assert not re.findall(r".*CONSOLE.*(?:Error|Failed).*", done.stderr)
