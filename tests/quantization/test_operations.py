import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from lit_compress.export.onnx import capture
from lit_compress.quantization.operations import (
    WEIGHTED,
    channel_dim,
    is_float,
    is_parameter,
    layer_names,
    origin,
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.conv(x)) + x
        rows = x.flatten(2).transpose(1, 2)
        rows = rows[:, 1:].unsqueeze(0).squeeze(0)
        return self.attention(rows, rows, rows, need_weights=False)[0]


def graph() -> list[Node]:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Block()).eval()
    program = capture(net, torch.randn(2, 3, 4, 4))
    return list(program.module(check_guards=False).graph.nodes)


def test_layers_are_named_after_weights_and_modules() -> None:
    nodes = graph()
    names = layer_names(nodes, ["pixels"])
    assert len(set(names.values())) == len(nodes)
    assert {"pixels", "0", "1.conv", "1/add", "1/add:2", "1.attention.in_proj"} <= set(
        names.values()
    )
    assert "1.attention.out_proj" in names.values()


def test_origins_are_found_through_movements() -> None:
    nodes = graph()
    names = layer_names(nodes, ["pixels"])
    reader = next(node for node in nodes if names[node] == "1.attention.in_proj")
    assert names[origin(reader.args[0])] == "1/add:2"
    first = next(node for node in nodes if names[node] == "0")
    assert origin(first) is first
    assert names[origin(first.args[0])] == "pixels"
    assert is_parameter(first.args[1])
    assert not is_parameter(first.args[0])
    assert is_float(first)
    assert not is_float(3)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, 7))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(5, 7, 1), (2, 5, 4)),
    "conv1d same": (nn.Conv1d(5, 7, 3, padding="same"), (2, 5, 4)),
    "conv2d": (nn.Conv2d(5, 7, 1), (2, 5, 4, 4)),
    "conv2d same": (nn.Conv2d(5, 7, 3, padding="same"), (2, 5, 4, 4)),
    "conv3d": (nn.Conv3d(5, 7, 1), (2, 5, 4, 4, 4)),
    "conv3d same": (nn.Conv3d(5, 7, 3, padding="same"), (2, 5, 4, 4, 4)),
    "conv_transpose1d": (nn.ConvTranspose1d(5, 7, 1), (2, 5, 4)),
    "conv_transpose2d": (nn.ConvTranspose2d(5, 7, 1), (2, 5, 4, 4)),
    "linear": (nn.Linear(5, 7), (2, 4, 5)),
    "matmul": (Product(), (2, 4, 5)),
}


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_channels_lie_along_the_axes_that_the_tables_say(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """Of each operation: 5 channels go in, and 7 come out."""
    program = capture(layer.eval(), torch.zeros(shape))
    (node,) = (n for n in program.graph_module.graph.nodes if n.target in WEIGHTED)
    before, after = node.args[0].meta["val"], node.meta["val"]
    assert before.shape[channel_dim(node, before)] == 5
    assert after.shape[channel_dim(node, after)] == 7
    assert node.args[1].meta["val"].shape[WEIGHTED[node.target]] == 7
