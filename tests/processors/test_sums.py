"""A processor without VNNI, computed in numpy: its sums of two products saturate at 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lit_compress.artifact import Fidelity, OnnxModel, replay, sqnr_db
from lit_compress.artifact.replay import check_replay, write_replay
from lit_compress.errors import ArtifactError
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization import quantize


class Sums(OnnxModel):
    """The file of one linear layer, computed in whole numbers.

    Attributes:
        saturates: Whether pairs of products are added as ``pmaddubsw`` does.
    """

    saturates = False

    def __call__(self, *inputs: np.ndarray, **_: object) -> np.ndarray:
        pixels, weights, scale, bias = self.parts(inputs[0])
        products = pixels[:, None] * weights
        pairs = products.reshape(*products.shape[:2], -1, 2).sum(3)
        if self.saturates:
            pairs = pairs.clip(-(2**15), 2**15 - 1)
        return (pairs.sum(2) + bias) * scale

    def parts(self, inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return pixels and weights as int64, the scale of their sums, and the bias."""
        graph = onnx.load_from_string(self.content).graph
        stored = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
        by_output = {node.output[0]: node for node in graph.node}
        (layer,) = (node for node in graph.node if node.op_type == "Gemm")
        before, weights, bias = (by_output[name] for name in layer.input)
        scale, zero = (stored[name] for name in before.input[1:])
        pixels = np.clip(np.round(inputs / scale) + zero, 0, 255).astype(np.int64) - zero
        weight, by_channel = (stored[name] for name in weights.input[:2])
        return pixels, weight.astype(np.int64), scale * by_channel, stored[bias.input[0]]


@pytest.mark.parametrize("weight_range", ["full", "reduced"])
def test_sums_that_saturate_are_refused(
    weight_range: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bright pixels and weights of one sign: each pair of full weights is beyond 16 bits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 10)).eval()
    nn.init.uniform_(net[0].weight, 0.7, 1.0)
    images = 0.5 + 0.5 * torch.rand(32, 64)
    graph = quantize(net, [images], images, weight_range=weight_range)
    write_onnx(graph, images, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = net(images).numpy()
    write_replay(tmp_path / "replay.npz", [images.numpy()], expected)

    model = Sums(tmp_path / "model.onnx")
    model.content = (tmp_path / "model.onnx").read_bytes()
    here = OnnxModel(tmp_path / "model.onnx")(images.numpy())
    assert sqnr_db(here, model(images.numpy())) > 100  # as ONNX Runtime does
    found = sqnr_db(expected, here)
    recorded = Fidelity(found, 1.0, 32, replay_db=found)
    check_replay(model, tmp_path / "replay.npz", recorded)

    monkeypatch.setattr(replay, "lacks_vnni", lambda: True)
    model.saturates = True
    if weight_range == "reduced":
        check_replay(model, tmp_path / "replay.npz", recorded)
        return
    assert sqnr_db(here, model(images.numpy())) < 20
    with pytest.raises(ArtifactError, match=r"has no VNNI.*weight_range: reduced"):
        check_replay(model, tmp_path / "replay.npz", recorded)
