"""The file of copies computes what the layer does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from lit_compress.layer_times import Layer, file, layers_of
from lit_compress.layer_times.file import input_array, write_copies
from lit_compress.runtimes.processor import lacks_vnni
from lit_compress.runtimes.session import open_session


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 7)),
        (nn.Conv2d(8, 8, 5, padding=2, groups=8), (8, 6, 6)),
        (nn.Conv2d(8, 4, 1, groups=2), (8, 6, 6)),
        (nn.Conv1d(4, 6, 3, padding="same", dilation=2), (4, 9)),
        (nn.Linear(12, 5), (12,)),
        (nn.Linear(12, 5), (7, 12)),
    ],
)
@pytest.mark.parametrize("lacking", [False, True])
def test_the_file_has_the_products_of_the_layer(
    module: nn.Module, shape: tuple[int, ...], lacking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without VNNI the layer was timed with sums that overflow, which no file of ours has."""
    if lacks_vnni() and not lacking:
        pytest.skip("sums of int8 products overflow on this processor")
    monkeypatch.setattr(file, "lacks_vnni", lambda: lacking)
    (layer,) = layers_of(module, torch.zeros(2, *shape))
    content, array = write_copies(layer, 3), input_array(layer, 2)
    session = open_session(content, threads=1)
    (found,) = session.run(["y0"], {"x": array})
    stored = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(content).graph.initializer
    }
    assert {f"weight{copy}" for copy in range(3)} <= stored.keys()
    assert not np.array_equal(stored["weight0"], stored["weight1"])

    with torch.no_grad():
        weight = torch.tensor(stored["weight0"]).float() - float(stored["weight_zero0"][0])
        module.weight.copy_(weight * 0.01)
        module.bias.zero_()
        image = torch.from_numpy((array.astype(np.float32) - 128) * np.float32(0.05))
        wanted = module(image.movedim(-1, 1)).movedim(1, -1) if layer.groups else module(image)
    expected = np.clip(np.rint(wanted.numpy() / 0.05) + 128, 0, 255)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_file_has_as_many_copies_as_asked_for() -> None:
    graph = onnx.load_from_string(write_copies(Layer(4, 4, (1,)), 5)).graph
    assert len(graph.node) == len(graph.output) == 5
