from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from lit_compress.export.onnx import capture, write_onnx
from lit_compress.export.rewrites.dequantized import share_dequantized
from lit_compress.quantization.convert import Calibrated, WithPreprocessing


class Dense(nn.Module):
    """Each layer reads the outputs of all layers before it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.body = nn.ModuleList(nn.Linear(4 * (i + 1), 4) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x).relu()]
        for layer in self.body:
            parts.append(layer(torch.cat(parts, 1)).relu())
        return torch.cat(parts, 1).sum(1)


def int8(layers: int) -> GraphModule:
    torch.manual_seed(0)
    inputs = torch.rand(8, 4)
    return Calibrated(Dense(layers), [inputs], inputs).convert()


def dequantizations(graph: GraphModule) -> Counter[str]:
    """By what is dequantised, how often."""
    nodes = [n for n in graph.graph.nodes if "dequantize_per" in str(n.target)]
    return Counter(str(node.args[0]) for node in nodes)


def test_each_tensor_is_dequantized_once() -> None:
    """The export of 48 layers took 31 s, for 1,300 operations of which 130 are needed."""
    graph, inputs = int8(6), torch.rand(5, 4)
    before = dequantizations(graph)
    shared = share_dequantized(graph)
    assert isinstance(shared, GraphModule)
    assert max(before.values()) == 7
    assert dequantizations(shared) == Counter(dict.fromkeys(before, 1))
    assert dequantizations(graph) == before
    assert torch.equal(shared(inputs), graph(inputs))
    assert {id(one) for one in shared.buffers()} <= {id(one) for one in graph.buffers()}


def test_the_operations_grow_with_the_layers() -> None:
    counts = [sum(dequantizations(_shared(int8(layers))).values()) for layers in (2, 4, 8)]
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


def _shared(graph: GraphModule) -> GraphModule:
    found = share_dequantized(graph)
    assert isinstance(found, GraphModule)
    return found


def test_the_graph_behind_the_preprocessing_is_found() -> None:
    graph, pixels = int8(4), torch.rand(5, 4)
    whole = WithPreprocessing(nn.ReLU(), graph)
    shared = share_dequantized(whole)
    assert whole.wrapped is graph
    assert isinstance(shared, WithPreprocessing)
    assert isinstance(shared.wrapped, GraphModule)
    assert max(dequantizations(shared.wrapped).values()) == 1
    assert torch.equal(shared(pixels), whole(pixels))


def test_nothing_to_share() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU()))
    assert share_dequantized(network) is network
    graph = _shared(int8(4))
    assert share_dequantized(graph) is graph


def test_the_file_is_what_it_was_with_an_operation_for_each_use(tmp_path: Path) -> None:
    graph, inputs = int8(3), torch.rand(5, 4)
    write_onnx(capture(graph, inputs), inputs, tmp_path / "each.onnx")
    write_onnx(graph, inputs, tmp_path / "shared.onnx")
    assert (tmp_path / "each.onnx").read_bytes() == (tmp_path / "shared.onnx").read_bytes()
