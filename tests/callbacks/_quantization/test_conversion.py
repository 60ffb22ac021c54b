from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import ForeignModule, stripes

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.artifact.fidelity import sketch_db
from lit_compress.artifact.replay import read_replay


def test_the_layers_sum_up_to_what_the_file_loses(made: Callable[..., Any], tmp_path: Path) -> None:
    conversion = made()
    metric, fidelity = conversion.write(tmp_path / "model.onnx", None)
    assert metric is None
    powers = [
        10 ** (-db / 10)
        for row in fidelity.layers
        for db in (row.weight_db, row.activation_db)
        if db is not None
    ]
    assert -10 * np.log10(sum(powers)) == pytest.approx(fidelity.sqnr_db, abs=4)
    assert [row.name for row in fidelity.layers][:2] == ["net.input", "net.0"]


def test_the_replay_is_of_the_float_network(
    made: Callable[..., Any], foreign: ForeignModule, tmp_path: Path
) -> None:
    conversion = made()
    _, fidelity = conversion.write(tmp_path / "model.onnx", None)
    conversion.write_replay(tmp_path / "replay.npz")
    inputs, (outputs,) = read_replay(tmp_path / "replay.npz")
    size = (tmp_path / "model.onnx").stat().st_size
    assert (tmp_path / "replay.npz").stat().st_size <= size < 4000
    assert [array.shape for array in inputs] == [((size - 800) // (65 * 4 + 12), 1, 8, 8)]
    assert fidelity.replay_n == len(inputs[0])
    with torch.no_grad():
        expected = foreign.eval()(torch.from_numpy(inputs[0]))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    again = OnnxModel(tmp_path / "model.onnx")(*inputs)
    assert sqnr_db(outputs, again) == pytest.approx(fidelity.replay_db)
    assert sketch_db(fidelity.replay_sketch, [again]) > 100
    assert sketch_db(fidelity.replay_sketch, [outputs]) < 80


def test_every_layer_can_stay_in_float(made: Callable[..., Any], tmp_path: Path) -> None:
    names = [row.name for row in made().write(tmp_path / "a.onnx", None)[1].layers]
    conversion = made(skip=("net.*",))
    _, fidelity = conversion.write(tmp_path / "model.onnx", None)
    assert fidelity.sqnr_db > 100
    assert [row.name for row in fidelity.layers if row.float] == names[1:]
    stored = onnx.load(tmp_path / "model.onnx").graph.initializer
    assert not any(item.data_type == onnx.TensorProto.INT8 for item in stored)


def test_images_are_those_of_the_seed(made: Callable[..., Any], tmp_path: Path) -> None:
    files = []
    for seed in (1, 1, 2):
        conversion = made(calibration_batches=2, seed=seed)
        conversion.write(tmp_path / "model.onnx", None)
        conversion.write_replay(tmp_path / "replay.npz")
        files.append(read_replay(tmp_path / "replay.npz")[0][0])
    np.testing.assert_array_equal(files[0], files[1])
    assert not np.array_equal(files[0], files[2])
    rows = {row.tobytes() for row in stripes(96, 1).tensors[0].numpy()}
    assert {row.tobytes() for row in files[0]} <= rows
