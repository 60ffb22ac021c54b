"""Runs that go on behind their last checkpoint: what is missing is made, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

import lit_compress
from lit_compress.callbacks import CompressionReport, PostTrainingQuantization

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning"),
    pytest.mark.usefixtures("no_trial_conversion"),
]

MakeTrainer = Callable[..., Trainer]


class Killed(Callback):
    """Ends the job before or after the conversion, by its place in the list of callbacks."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise KeyError("killed")


def fitted(
    make_trainer: MakeTrainer, folder: Path, epochs: int, *parts: Callback
) -> LightningModule:
    seed_everything(0, verbose=False)
    module, last = ForeignModule(), folder / "kept" / "last.ckpt"
    trainer = make_trainer(
        max_epochs=epochs,
        callbacks=[*parts, ModelCheckpoint(folder / "kept", save_last=True)],
        enable_checkpointing=True,
    )
    trainer.fit(module, loader(), loader(64, 1), ckpt_path=last if last.is_file() else None)
    return module


def quantizer(folder: Path) -> PostTrainingQuantization:
    return PostTrainingQuantization(dirpath=str(folder / "artifact"))


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (folder / "artifact").iterdir()
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_run_killed_between_artefact_and_report_reports(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """It said that nothing was trained, and the card stayed without the report for ever."""
    with pytest.raises(KeyError, match="killed"):
        fitted(make_trainer, tmp_path, 1, quantizer(tmp_path), CompressionReport(), Killed())
    assert "model-fp32.onnx" not in state(tmp_path)
    fitted(make_trainer, tmp_path, 1, quantizer(tmp_path), CompressionReport())
    names = [variant.name for variant in lit_compress.load(tmp_path / "artifact").card.variants]
    assert names == ["dense", "dense onnx", "int8"]
    assert lit_compress.load(tmp_path / "artifact", weights="fp32").outputs
    complete = state(tmp_path)
    fitted(make_trainer, tmp_path, 1, quantizer(tmp_path), CompressionReport())
    assert state(tmp_path) == complete


@pytest.mark.parametrize("report", [False, True])
def test_the_artefact_of_an_earlier_end_is_replaced(
    report: bool, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """A run of two epochs that was killed at its end kept the file of its first epoch."""

    def part() -> Callback:
        return (
            CompressionReport(dirpath=str(tmp_path / "artifact")) if report else quantizer(tmp_path)
        )

    fitted(make_trainer, tmp_path, 1, part())
    first = state(tmp_path)
    with pytest.raises(KeyError, match="killed"):
        fitted(make_trainer, tmp_path, 2, Killed(), part())
    assert state(tmp_path) == first
    module = fitted(make_trainer, tmp_path, 2, part())
    weights = load_file(tmp_path / "artifact" / "model.safetensors")
    assert all(torch.equal(weights[name], one) for name, one in module.state_dict().items())


def test_a_damaged_artefact_is_written_again(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted(make_trainer, tmp_path, 1, quantizer(tmp_path))
    weights = tmp_path / "artifact" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    fitted(make_trainer, tmp_path, 1, quantizer(tmp_path))
    assert "the artefact of an earlier fit is written again, since" in caplog.text
    assert lit_compress.load(tmp_path / "artifact").outputs
