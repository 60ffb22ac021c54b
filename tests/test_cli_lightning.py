"""What the command line adds to LightningCLI: no config but that of a fit, and less noise."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from lit_compress.cli import main
from lit_compress.cli_lightning import _without_noise

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("shallow"),
]


def test_only_a_fit_saves_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test with the config of a fit replaced it by its own, so that a resumed fit failed."""
    monkeypatch.chdir(tmp_path)
    words = ["--model=ShuffleNetV2", "--model.in_channels=1", "--model.width=0.5"]
    words += ["--data=DigitsDataModule", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    words += ["--trainer.enable_model_summary=false"]
    assert main(["fit", *words, "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]) == 0
    saved = (tmp_path / "config.yaml").read_bytes()
    assert main(["test", *words]) == 0
    assert main(["validate", *words]) == 0
    assert (tmp_path / "config.yaml").read_bytes() == saved


def test_advertisements_are_left_out_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, log.name), _without_noise():
        log.info("💡 Tip: install another product")
        log.info("the artefact was written")
    assert caplog.messages == ["the artefact was written"]
    assert not log.filters
