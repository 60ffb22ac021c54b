"""Channel shuffles are folded into weights, and no output changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import ShuffleNetV2

from lit_compress.artifact import OnnxModel
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization.convert import Calibrated
from lit_compress.quantization.shuffles import fold_shuffles

from .networks import Network, captured, conv, shuffled


def check(network: nn.Module, channels: int = 4) -> int:
    """Fold, check that the outputs are those of the network, and return the number folded."""
    image = torch.rand(2, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        graph = captured(network, image)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        folded = fold_shuffles(graph)
        torch.testing.assert_close(graph(image), network(image), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    return folded


def shuffles(file: Path) -> int:
    """Return the number of transposes of five axes."""
    nodes = onnx.load(file).graph.node
    return sum(n.op_type == "Transpose" and len(n.attribute[0].ints) == 5 for n in nodes)


def test_shuffle_net_gives_the_same_int8_numbers_without_a_shuffle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ShuffleNetV2([2, 3, 2], [8, 16, 32, 48, 64], num_classes=5).eval()
    images = torch.rand(4, 3, 64, 64)
    file = tmp_path / "model.onnx"
    calibrated = Calibrated(network, [images], images)
    write_onnx(calibrated.convert(), images, file)
    assert shuffles(file) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_compress.quantization.convert.fold_shuffles", lambda graph: 0)
        write_onnx(calibrated.convert(), images, tmp_path / "shuffled.onnx")
    assert shuffles(tmp_path / "shuffled.onnx") == 7
    outputs = [OnnxModel(path)(images.numpy()) for path in (file, tmp_path / "shuffled.onnx")]
    np.testing.assert_array_equal(*outputs)


def test_a_shuffle_between_convolutions_goes_into_their_weights() -> None:
    network = nn.Sequential(conv(4, 12), nn.ChannelShuffle(3), conv(12, 2))
    assert check(network) == 1


def test_a_depthwise_convolution_keeps_the_new_order() -> None:
    depthwise = conv(12, 12, groups=12, kernel_size=3)
    network = nn.Sequential(conv(4, 12), nn.ReLU(), nn.ChannelShuffle(3), depthwise, conv(12, 2))
    assert check(network) == 1


def test_units_that_pass_half_of_the_channels_on() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        x = net.first(x)
        for layer in (net.a, net.b, net.c):
            left, right = x.chunk(2, dim=1)
            x = shuffled(torch.cat((left, layer(right).relu()), dim=1))
        return net.last(x)

    layers = {"first": conv(4, 16), "a": conv(8, 8), "b": conv(8, 8), "c": conv(8, 8)}
    assert check(Network(forward, **layers, last=conv(16, 3))) == 3


@pytest.mark.parametrize(
    ("forward", "layers"),
    [
        pytest.param(lambda net, x: shuffled(net.a(x)), {"a": conv(4, 8)}, id="an output"),
        pytest.param(
            lambda net, x: net.b(shuffled(net.a(x))).flatten(1),
            {"a": conv(4, 8), "b": conv(8, 8, groups=2)},
            id="read by groups",
        ),
        pytest.param(
            lambda net, x: net.b(shuffled(net.a(x)).flatten(1)),
            {"a": conv(4, 8), "b": nn.Linear(200, 2)},
            id="read by a linear layer",
        ),
        pytest.param(
            lambda net, x: net.b((y := net.a(x)) + shuffled(y)),
            {"a": conv(4, 8), "b": conv(8, 3)},
            id="added to itself",
        ),
        pytest.param(
            lambda net, x: net.b(shuffled(torch.cat((y := net.a(x), y), 1))),
            {"a": conv(4, 4), "b": conv(8, 3)},
            id="channels that occur twice",
        ),
    ],
)
def test_a_shuffle_stays_where_its_order_is_needed(
    forward: Callable[[Network, Tensor], Tensor], layers: dict[str, nn.Module]
) -> None:
    assert check(Network(forward, **layers)) == 0


def test_a_shuffle_of_an_input_goes_into_the_layer_that_reads_it() -> None:
    assert check(nn.Sequential(nn.ChannelShuffle(2), conv(4, 8))) == 1


def test_a_layer_that_is_called_twice_keeps_its_order() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        return net.b(shuffled(net.a(net.a(x))))

    network = Network(forward, a=conv(4, 4), b=conv(4, 3))
    graph = captured(network, torch.rand(2, 4, 5, 5))
    fold_shuffles(graph)
    assert torch.equal(graph.get_parameter("a.weight"), network.a.weight)
    assert check(network) == 1


def test_a_shuffle_that_is_added_to_a_convolution() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        return net.c(shuffled(net.a(x)) + net.b(x))

    assert check(Network(forward, a=conv(4, 8), b=conv(4, 8), c=conv(8, 3))) == 1


def test_two_shuffles_in_different_orders_are_added() -> None:
    def forward(net: Network, x: Tensor) -> Tensor:
        return net.c(shuffled(net.a(x), 2) + shuffled(net.b(x), 4))

    assert check(Network(forward, a=conv(4, 8), b=conv(4, 8), c=conv(8, 3))) == 0


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw a chain of convolutions, shuffles, splits and sums over some values."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["conv", "depthwise", "shuffle", "cat", "split", "add", "slice"]),
                st.integers(0, 5),
                st.integers(0, 5),
                st.sampled_from([2, 4]),
            ),
            min_size=3,
            max_size=14,
        )
    )
    layers: dict[str, nn.Module] = {"stem": conv(4, 8)}
    widths, plan = [8], []
    for name, first, second, number in steps:
        a, b = first % len(widths), second % len(widths)
        width = widths[a]
        if name == "conv":
            layers[f"layer{len(plan)}"] = conv(width, 8)
            width = 8
        elif name == "depthwise":
            layers[f"layer{len(plan)}"] = conv(width, width, groups=width)
        elif name == "cat":
            width += widths[b]
        elif name in ("split", "slice"):
            width //= 2
        if width % 4 == 0 and width <= 64 and (name != "add" or widths[a] == widths[b]):
            widths.append(width)
            plan.append((name, a, b, number, f"layer{len(plan)}"))
    layers["last"] = conv(widths[-1], 3)

    def forward(net: Network, x: Tensor) -> Tensor:
        values = [net.stem(x)]
        for name, a, b, number, layer in plan:
            value = values[a]
            if name in ("conv", "depthwise"):
                value = getattr(net, layer)(value)
            elif name == "shuffle":
                value = shuffled(value, number)
            elif name == "cat":
                value = torch.cat((value, values[b]), 1)
            elif name == "split":
                value = value.split(value.shape[1] // 2, 1)[number // 4]
            elif name == "slice":
                value = value[:, value.shape[1] // 2 :] if number == 2 else value[:, ::2]
            else:
                value = value + values[b]
            values.append(value)
        return net.last(values[-1])

    return Network(forward, **layers)


@given(networks())
@settings(max_examples=60, deadline=None)
def test_no_output_of_any_network_changes(network: Network) -> None:
    check(network)
