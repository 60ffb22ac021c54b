from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_compress.artifact import OnnxModel, sqnr_db
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization import quantize


class Branches(nn.Module):
    """Everything that is placed specially: a residual sum, a split, a concatenation, an average."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        self.same = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.side = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.same(x))
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.side(right)], 1)
        x = x.view(-1, 2, 8, 8, 8).transpose(1, 2).reshape(-1, 16, 8, 8)
        return self.head(self.pool(x).mean([2, 3]))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def fused_operations(path: Path, folder: Path) -> Counter[str]:
    """Operations of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(folder / "optimized.onnx").graph.node)


def test_every_layer_runs_in_int8(images: Tensor, tmp_path: Path) -> None:
    net = Branches().eval()
    write_onnx(quantize(net, [images], images), images, tmp_path / "m.onnx")
    ran = fused_operations(tmp_path / "m.onnx", tmp_path)
    assert ran["QLinearConv"] == 3
    assert ran["QLinearAdd"] == 1
    assert ran["QLinearConcat"] == 1
    assert not ran["Conv"] + ran["FusedConv"] + ran["Add"] + ran["Concat"] + ran["Relu"]


def test_weights_are_symmetric_int8_by_channel(images: Tensor, tmp_path: Path) -> None:
    net = Branches().eval()
    write_onnx(quantize(net, [images], images), images, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    weights = {
        node.input[0]: node for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
        and stored[node.input[0]].dtype == "int8"
    }  # fmt: skip
    assert sorted(stored[name].size for name in weights) == sorted(
        layer.weight.numel() for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    )
    for name, node in weights.items():
        values, scales, zeros = stored[name], stored[node.input[1]], stored[node.input[2]]
        assert values.dtype == "int8"
        assert values.min() >= -127
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        assert scales.shape == (values.shape[axis],)
        assert len(set(scales.tolist())) > 1
        assert not zeros.any()


def chain(operation: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> nn.Module:
    """A convolution, an operation, a convolution."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 3, padding=1)
            self.last = nn.Conv2d(16, 4, 3, padding=1)
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(operation(self, torch.relu(self.first(x)))).mean([2, 3])

    return Chain().eval()


def conv() -> nn.Conv2d:
    return nn.Conv2d(16, 16, 1)


class Beside(nn.Module):
    """Networks that read the same images, each with its own outputs."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks])


Operation = tuple[Callable[[Any, Tensor], Tensor], Callable[[], nn.Module] | None]

#: Operations by what ONNX Runtime must run, and what it must not. One conversion each.
OPERATIONS: list[tuple[dict[str, Operation], dict[str, int], list[str]]] = [
    (
        {
            "relu6": (lambda s, x: F.relu6(s.c(x)), conv),
            "clamp": (lambda s, x: s.c(x).clamp(-1, 1), conv),
            "uneven": (lambda s, x: s.c(x).clamp(-0.1, 0.3), conv),
            "hardtanh": (lambda s, x: F.hardtanh(s.c(x)), conv),
            "half open": (lambda s, x: s.c(x).clamp(-0.5), conv),
            "hardswish": (lambda s, x: F.hardswish(s.c(x)), conv),
            "silu": (lambda s, x: F.silu(s.c(x)), conv),
            "gelu": (lambda s, x: F.gelu(s.c(x)), conv),
            "conv1d": (
                lambda s, x: s.c(x.flatten(2)).view(-1, 16, 8, 8),
                lambda: nn.Conv1d(16, 16, 3, padding=1),
            ),
        },
        {"QLinearConv": 27},
        ["Conv", "FusedConv", "Clip"],
    ),
    (
        {
            "sigmoid": (lambda s, x: s.c(x).sigmoid(), conv),
            "leaky": (lambda s, x: F.leaky_relu(s.c(x)), conv),
            "add": (lambda s, x: x + s.c(x), conv),
            "mul": (lambda s, x: x * s.c(x), conv),
            "cat": (lambda s, x: torch.cat([x[:, 8:], s.c(x)[:, :8]], 1), conv),
        },
        {"QLinearConv": 15, "QLinearSigmoid": 1, "QLinearLeakyRelu": 1, "QLinearAdd": 1,
         "QLinearMul": 1, "QLinearConcat": 1},
        ["Conv", "FusedConv", "Sigmoid", "LeakyRelu", "Add", "Mul"],
    ),
    (
        {
            "average": (lambda s, x: F.avg_pool2d(x, 2), None),
            "maximum": (lambda s, x: F.max_pool2d(x, 2), None),
            "nearest": (lambda s, x: F.interpolate(x, scale_factor=2), None),
            "shuffle": (lambda s, x: F.channel_shuffle(x, 2), None),
        },
        {"QLinearConv": 8, "QLinearAveragePool": 1, "NhwcMaxPool": 1, "Resize": 1},
        ["Conv", "AveragePool"],
    ),
    (
        {
            "gate": (lambda s, x: x * torch.sigmoid(s.c(F.adaptive_avg_pool2d(x, 1))), conv),
            "rows": (
                lambda s, x: s.c(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape),
                lambda: nn.Linear(16, 16),
            ),
        },
        {"QLinearGlobalAveragePool": 3, "QLinearSigmoid": 1, "QLinearMul": 1,
         "MatMulIntegerToFloat": 1},
        ["ReduceMean", "MatMul"],
    ),
]  # fmt: skip


#: Two of them take most of the time.
LONG = (0, 3)


@pytest.mark.parametrize(
    ("operations", "ran", "not_ran"),
    [
        pytest.param(*row, marks=[pytest.mark.slow] if index in LONG else [])
        for index, row in enumerate(OPERATIONS)
    ],
)
def test_what_stands_between_two_convolutions(
    operations: dict[str, Operation],
    ran: dict[str, int],
    not_ran: list[str],
    images: Tensor,
    tmp_path: Path,
) -> None:
    networks = [
        chain(call, **({"c": made()} if made else {})) for call, made in operations.values()
    ]
    net = Beside(networks).eval()
    write_onnx(quantize(net, [images], images), images, tmp_path / "m.onnx")
    counted = fused_operations(tmp_path / "m.onnx", tmp_path)
    assert {key: counted[key] for key in ran} == ran
    assert not [name for name in not_ran if counted[name]]
    with torch.no_grad():
        pairs = zip(net(images).numpy(), OnnxModel(tmp_path / "m.onnx")(images), strict=True)
    quality = {name: sqnr_db(*pair) for name, pair in zip(operations, pairs, strict=True)}
    assert {name: db for name, db in quality.items() if db <= 27} == {}


@pytest.mark.parametrize(
    "limits", [(-1, 0.001), (-0.002, 1), (-0.003, 1), (-0.02, 6), (-1, 1), (-0.3, 0.1)]
)
@pytest.mark.parametrize("joined", [False, True])
def test_clipping_takes_no_range_from_others(
    limits: tuple[float, float], joined: bool, images: Tensor
) -> None:
    """Where a limit was near zero, or that of one part of a `cat`, most of the range was gone."""

    def operation(s: nn.Module, x: Tensor) -> Tensor:
        clipped = s.c(x).mul(3).clamp(*limits)
        return torch.cat([x[:, 8:], clipped[:, :8]], 1) if joined else clipped

    net = chain(operation, c=conv())
    with torch.no_grad():
        found = quantize(net, [images], images)(images).numpy()
        assert sqnr_db(net(images).numpy(), found) > 30


def test_transposed_convolutions_have_int8_weights_by_output_channel(
    images: Tensor, tmp_path: Path
) -> None:
    """No runtime runs them in int8, so that is all there is to gain."""
    up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    flat = nn.ConvTranspose1d(8, 16, 3, padding=1)
    net = chain(lambda s, x: s.flat(s.up(x).flatten(2)).view(-1, 16, 16, 16), up=up, flat=flat)
    write_onnx(quantize(net, [images], images), images, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    weights = [makers[n.input[1]] for n in graph.node if n.op_type == "ConvTranspose"]
    assert [stored[node.input[0]].dtype for node in weights] == ["int8", "int8"]
    assert [stored[node.input[1]].shape for node in weights] == [(8,), (16,)]
    assert not any(n.op_type == "BatchNormalization" for n in graph.node)
    with torch.no_grad():
        assert sqnr_db(net(images).numpy(), OnnxModel(tmp_path / "m.onnx")(images)) > 28


def test_a_value_has_one_range_wherever_it_is_moved(images: Tensor) -> None:
    """Pairs between the steps of a channel shuffle cost OpenVINO its fused form, and 40 % time."""
    net = Branches().eval()
    graph = quantize(net, [images], images)
    moved = {"view", "transpose", "reshape"}
    for node in graph.graph.nodes:
        if node.name.rpartition("_")[0] in moved or node.name in moved:
            assert "quantize" not in node.args[0].name or "dequantize" in node.args[0].name
    shuffled = [n for n in graph.graph.nodes if n.name == "transpose"]
    assert all("quantize" not in user.name for n in shuffled for user in n.users)


@pytest.mark.slow
def test_reduced_weights_never_overflow_sixteen_bits(images: Tensor, tmp_path: Path) -> None:
    """Without VNNI, two products of uint8 and int8 are added in an int16 that saturates."""
    net = Branches().eval()
    pairs = {}
    for weight_range in ("full", "reduced"):
        graph = quantize(net, [images], images, weight_range=weight_range)
        write_onnx(graph, images, tmp_path / f"{weight_range}.onnx")
        stored = onnx.load(tmp_path / f"{weight_range}.onnx").graph.initializer
        arrays = [onnx.numpy_helper.to_array(i) for i in stored]
        largest = max(int(np.abs(a.astype(int)).max()) for a in arrays if a.dtype == np.int8)
        pairs[weight_range] = 255 * largest * 2
        assert largest == {"full": 127, "reduced": 64}[weight_range]
    assert pairs["reduced"] <= 2**15 - 1 < pairs["full"]


def test_dead_channels_and_tiny_weights_keep_their_biases(images: Tensor, tmp_path: Path) -> None:
    """A scale of nearly nothing made biases that did not fit 32 bits."""
    net = chain(lambda s, x: s.c(x), c=conv())
    with torch.no_grad():
        net.c.weight[:8] = 0
        net.c.weight[8:] *= 1e-4
        net.c.bias[:] = 3
    write_onnx(quantize(net, [images], images), images, tmp_path / "m.onnx")
    with torch.no_grad():
        assert sqnr_db(net(images).numpy(), OnnxModel(tmp_path / "m.onnx")(images)) > 30


def test_relu6_stays_relu6(images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 1)).eval()
    with torch.no_grad():
        net[0].weight.mul_(40)
        graph = quantize(net, [images], images)
        error = (graph(images) - net(images)).pow(2).mean() / net(images).pow(2).mean()
    assert error < 1e-3


class Video(nn.Module):
    """A mean over a part of the axes of a value that is no image."""

    def __init__(self, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.dims, self.keepdim = dims, keepdim
        self.conv, self.out = nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 4, (3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        mean = x.mean(self.dims, keepdim=self.keepdim)
        return self.out(x * mean.sigmoid()).amax((2, 3, 4)) if self.keepdim else mean.amax(2) + 0.1


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).relu().mean((-2, -1), keepdim=True).flatten(1))
        return out


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda: Video((-2, -1), False), (8, 1, 6, 5, 5)),
        (lambda: Video((2, 3), False), (8, 1, 6, 5, 5)),
        (lambda: Video((-2, -1), True), (8, 1, 6, 5, 5)),
        (Tokens, (8, 4, 6)),
    ],
)
def test_only_means_over_images_become_global_pools(
    network: Callable[[], nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """A mean over the frames of a video averaged the time too; one over tokens did not load."""
    torch.manual_seed(0)
    net, x = network().eval(), torch.randn(shape)
    write_onnx(quantize(net, [x], x), x, tmp_path / "m.onnx")
    expected = net(x).detach().numpy()
    found = OnnxModel(tmp_path / "m.onnx")(x)
    assert found.shape == expected.shape
    assert sqnr_db(expected, found) > 30


class Twice(nn.Module):
    """One layer for two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        seen = [self.conv(each).relu().mean((2, 3)) for each in (x, y)]
        out: Tensor = self.head(torch.cat(seen, 1))
        return out


@pytest.mark.parametrize("skip", ["first", "conv:2"])
def test_a_layer_that_is_called_twice_may_be_float_once(skip: str) -> None:
    """The weights of the other call were all zero: its observer had seen nothing."""
    torch.manual_seed(0)
    net, batch = Twice().eval(), (torch.randn(32, 3, 8, 8), torch.randn(32, 3, 8, 8))
    found = quantize(net, [batch], batch, skip=[skip])(*batch)
    assert sqnr_db(net(*batch).detach().numpy(), found.detach().numpy()) > 40


class Units(nn.Module):
    """Colours and a depth in one tensor, which two layers read."""

    def __init__(self, split: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.split = split
        self.colours, self.depth = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)
        self.norm, self.head = nn.BatchNorm2d(8, momentum=None), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        colours, depth = self.split(x)
        seen = [self.colours(colours).relu(), self.norm(self.depth(depth)).relu()]
        out: Tensor = self.head(torch.cat(seen, 1).mean((2, 3)))
        return out


@pytest.mark.parametrize(
    "split",
    [
        lambda x: (x[:, :3], x[:, 3:]),
        lambda x: (x[:, :3], x.unbind(1)[3].unsqueeze(1)),
    ],
)
def test_parts_of_an_input_have_ranges_of_their_own(
    split: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Colours from 0 to 1 had the range of the depth, up to 5,000: 8 dB."""
    torch.manual_seed(0)
    x = torch.cat([torch.rand(32, 3, 8, 8), 5000 * torch.rand(32, 1, 8, 8)], 1)
    net = Units(split)
    net(x)
    net.eval()
    found = quantize(net, [x], x)(x).detach().numpy()
    assert sqnr_db(net(x).detach().numpy(), found) > 35
