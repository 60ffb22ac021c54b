"""A fit writes other formats than ONNX, or says before the training that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torch import Tensor, nn

import lit_compress.trainer
from lit_compress import load
from lit_compress.artifact import OnnxModel, read_card
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.callbacks._quantization import formats
from lit_compress.errors import ExportError, InvalidArgumentError
from lit_compress.formats import Written
from lit_compress.runtimes import Format
from lit_compress.runtimes.interface import Engine

MakeTrainer = Callable[..., Trainer]


class Stored:
    """An exporter whose file is the ONNX file, for machines without any of the runtimes."""

    format: Format = "litert"
    packages: tuple[str, ...] = ()
    one_batch = True

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fails = False

    def write(
        self, network: nn.Module, inputs: Sequence[Tensor], path: Path, onnx: Path
    ) -> Written:
        if self.fails:
            raise RuntimeError("an operation that it does not know")
        self.batches.append(len(inputs[0]))
        file = path.with_name(f"{path.name}.tflite")
        file.write_bytes(onnx.read_bytes())
        return Written((file.name,), ("a note",))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Stored:
    exporter = Stored()

    def opened(path: Path, runtime: Any, files: Any, threads: int) -> Engine:
        return OnnxModel("model.onnx", content=files[0][1][0])._engine

    monkeypatch.setattr(formats, "exporter", lambda name: exporter)
    monkeypatch.setattr(formats, "open_format", opened)
    monkeypatch.setattr(
        "lit_compress.callbacks.post_training_quantization.check_installed", lambda names: None
    )
    return exporter


def quantizer(folder: Path, **arguments: Any) -> PostTrainingQuantization:
    arguments = {"formats": ("onnx", "litert"), "monitor": "my_acc", **arguments}
    return PostTrainingQuantization(dirpath=str(folder), calibration_batches=4, **arguments)


def test_the_files_are_on_the_card(
    make_trainer: MakeTrainer, tmp_path: Path, stored: Stored
) -> None:
    callback = quantizer(tmp_path / "artifact", batch_sizes=(1, 5))
    make_trainer(callbacks=[callback], max_epochs=1).fit(ForeignModule(), loader(), loader(64, 1))
    card = read_card(tmp_path / "artifact")
    int8 = card.variant("int8")
    assert int8.fidelity is not None
    assert int8.metric is not None
    assert [file.name for file in int8.formats] == ["litert, batch 1", "litert, batch 5"]
    for file in int8.formats:
        assert file.files[0] in card.files
        assert file.sqnr_db == pytest.approx(int8.fidelity.sqnr_db)
        assert file.replay_db == pytest.approx(int8.fidelity.replay_db)
        assert len(file.replay_sketch) == len(file.outputs)
        assert file.metric == int8.metric.value
        assert file.bytes == (tmp_path / "artifact" / file.files[0]).stat().st_size
        assert file.notes == ("a note",)
        assert [port.batched for port in (*file.inputs, *file.outputs)] == [True, True]
    assert stored.batches[-2:] == [1, 5]
    load(tmp_path / "artifact")


def test_a_network_that_a_format_cannot_have(
    make_trainer: MakeTrainer, tmp_path: Path, stored: Stored
) -> None:
    stored.fails = True
    trainer = make_trainer(callbacks=[quantizer(tmp_path / "artifact")], max_epochs=1)
    with pytest.raises(ExportError, match=r"litert cannot have this network .*does not know"):
        trainer.fit(ForeignModule(), loader(), loader(64, 1))
    assert not trainer.global_step  # before the training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ("onnx", "tflite")}, "formats may have onnx, executorch, litert, openvino"),
        ({"formats": ("litert",)}, "formats must have onnx"),
        ({"formats": ("onnx", "onnx")}, "formats has a value twice"),
        ({"batch_sizes": ()}, "batch_sizes must be whole numbers from 1"),
        ({"batch_sizes": (0,)}, "batch_sizes must be whole numbers from 1"),
        ({"batch_sizes": (2, 2)}, "batch_sizes has a value twice"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        quantizer(tmp_path, **arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages, about their own code
@pytest.mark.parametrize(
    ("name", "package"),
    [("executorch", "executorch"), ("litert", "litert_torch"), ("openvino", "openvino")],
)
def test_each_real_format(
    make_trainer: MakeTrainer, tmp_path: Path, name: Any, package: str
) -> None:
    pytest.importorskip(package)
    callback = quantizer(tmp_path / "artifact", formats=("onnx", name), batch_sizes=(1, 16))
    make_trainer(callbacks=[callback], max_epochs=1).fit(ForeignModule(), loader(), loader(64, 1))
    images = next(iter(loader(64, 1, 21)))[0].numpy()
    expected, found = (
        load(tmp_path / "artifact", runtime=r)(images) for r in ("onnxruntime", name)
    )
    step = np.abs(expected).max() / 64  # a runtime may round to the next of 256 values
    np.testing.assert_allclose(found, expected, atol=step)
    for file in read_card(tmp_path / "artifact").variant("int8").formats:
        assert file.agreement is not None
        assert file.agreement >= 0.95


def test_quantize_names_a_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_compress.formats.exporters.find_spec", lambda package: None)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lit_compress.trainer.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet)
    with pytest.raises(InvalidArgumentError, match=r"pip install 'lit-compress\[litert\]'"):
        trainer.quantize(ForeignModule(), loader(64, 1), formats=["onnx", "litert"])
