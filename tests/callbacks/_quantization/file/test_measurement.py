"""A file is measured by what it returns, whatever file it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer

from lit_compress.artifact import OnnxModel
from lit_compress.callbacks._quantization.file.float_outputs import FloatOutputs
from lit_compress.callbacks._quantization.file.measurement import Measurement
from lit_compress.callbacks._quantization.pixels import find_pixels
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.evaluation.run_view.copies import clone


class Shifted(OnnxModel):
    """Stands for a file that returns what the network does, and some more."""

    runtime = "onnxruntime"

    def __init__(self, module: ForeignModule, shift: np.ndarray) -> None:
        self.module, self.shift = module, shift
        self.inputs: Any = (SimpleNamespace(name="input"),)

    def all_outputs(self, *inputs: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [self.module(torch.from_numpy(inputs[0])).numpy() + self.shift]


@pytest.fixture
def module() -> ForeignModule:
    torch.manual_seed(0)
    return ForeignModule().eval()


@pytest.fixture
def measurement(module: ForeignModule, make_trainer: Callable[..., Trainer]) -> Measurement:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(module, loader(64), loader(96, 1))
    settings = Settings(monitor="my_acc")
    copy = clone(trainer, module).eval()
    network = settings.network(trainer, copy)
    expected = FloatOutputs(network.inputs, copy, network.captured(copy))
    pixels = find_pixels(trainer, network, settings)
    return Measurement(trainer, copy, network, "my_acc", pixels, expected)


def test_the_metric_is_that_of_what_the_file_returns(
    measurement: Measurement, module: ForeignModule
) -> None:
    shift = np.float32([9, 0, 0, 0])  # all are of the first class
    images, labels = stripes(96, 1).tensors
    metric = measurement.metric(Shifted(module.eval(), shift))
    assert metric is not None
    assert metric.value == pytest.approx(float((labels == 0).float().mean()))
    with torch.no_grad():
        right = (module(images).argmax(1) == labels).float().mean()
    exact = measurement.metric(Shifted(module, np.float32(0)))
    assert exact is not None
    assert exact.value == pytest.approx(float(right))


def test_the_distance_is_that_of_the_outputs(
    measurement: Measurement, module: ForeignModule, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(4_000))
    stored = measurement.stored(file)
    found = measurement.fidelity(Shifted(module.eval(), np.float32(0.5)), stored)
    with torch.no_grad():
        outputs = torch.cat([module(batch) for batch in measurement.network.inputs]).double()
    power = float((outputs**2).mean()) / 0.25
    assert found.sqnr_db == pytest.approx(10 * np.log10(power), abs=1e-3)
    assert found.agreement == 1.0  # the same shift for each class
    assert found.n == len(outputs)
    assert not found.fake_quantized
    assert found.replay_n == stored.count == (4_000 - 800) // (65 * 4 + 12)


def test_without_a_monitor_there_is_no_metric(measurement: Measurement) -> None:
    settings = {**vars(measurement), "monitor": None}
    model = Shifted(ForeignModule(), np.float32(0))
    assert Measurement(**settings).metric(model) is None
