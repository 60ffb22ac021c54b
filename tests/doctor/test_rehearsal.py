"""The start of a fit on copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from conftest import ForeignModule, loader
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_compress.doctor.rehearsal import Rehearsal, _Probe, stop


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger, None])
def test_a_run_is_begun_without_a_file(kind: Any, tmp_path: Path) -> None:
    logger = False if kind is None else kind(tmp_path / "logs", "name")
    trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, max_epochs=1, logger=logger, profiler="simple"
    )
    module = ForeignModule()
    rehearsal = Rehearsal(trainer, module, [], lambda _: False)
    expected = tmp_path if kind is None else tmp_path / "logs" / "name" / "version_0"
    assert rehearsal.folder == expected
    seen: list[Any] = []

    def look(copy: pl.Trainer, other: pl.LightningModule) -> None:
        seen.append((copy, other, len(copy.optimizers), copy.num_training_batches, copy.log_dir))

    ended = rehearsal.start(_Probe(ready=look), _Probe(ready=stop), train_dataloaders=loader(64))
    assert ended is None
    ((copy, other, optimizers, batches, folder),) = seen
    assert copy is rehearsal.trainer is not trainer
    assert other is rehearsal.module is not module
    assert (optimizers, batches) == (1, 4)
    assert rehearsal.true_names(f"in {folder}") == f"in {expected}"
    assert list(tmp_path.iterdir()) == []


def test_an_error_ends_it(tmp_path: Path) -> None:
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, max_epochs=1, logger=False)
    rehearsal = Rehearsal(trainer, ForeignModule(), [], lambda _: False)
    ended = rehearsal.start(_Probe(), _Probe(ready=stop), train_dataloaders=3)
    assert isinstance(ended, TypeError)
