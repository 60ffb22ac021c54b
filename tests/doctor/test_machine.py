"""Folders, space and processor, with an answer and without a trace."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from doctor.faults import Net
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.doctor import machine
from lit_compress.doctor.finding import joined


def trainer(*callbacks: pl.Callback) -> pl.Trainer:
    checkpoints = any(isinstance(one, ModelCheckpoint) for one in callbacks)
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=10,
        logger=False,
        enable_checkpointing=checkpoints,
        callbacks=list(callbacks),
    )


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    found = joined("folder", machine.check_folder(tmp_path / "runs" / "version_0", []))
    assert found.verdict == "error"
    assert found.found == f"{tmp_path / 'runs'} is a file, and a folder is needed"


def test_a_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    found = joined("folder", machine.check_folder(tmp_path / "new" / "run", []))
    assert (found.verdict, found.found) == ("error", f"{tmp_path} cannot be written")


def test_the_space_of_all_kept_checkpoints_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Net()
    size = 4 * sum(p.numel() for p in module.parameters())
    run = trainer(ModelCheckpoint(tmp_path, monitor="x", save_top_k=4, save_last=True))
    for free, verdict in ((15 * size, "fine"), (15 * size - 1, "error")):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        assert machine.check_space(run, module, tmp_path / "new").verdict == verdict
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacks", [True, False])
@pytest.mark.parametrize("weight_range", ["full", "reduced", None])
def test_a_processor_without_vnni_needs_reduced_weights(
    lacks: bool, weight_range: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "lacks_vnni", lambda: lacks)
    callbacks = (
        [] if weight_range is None else [PostTrainingQuantization(weight_range=weight_range)]
    )
    answer = machine.check_processor(trainer(*callbacks))
    assert answer.verdict == ("warning" if lacks and weight_range == "full" else "fine")
    assert ("weight_range: reduced" in answer.remedy) == (answer.verdict == "warning")
