"""Counted against loops written by hand, and against torchvision's published figures."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torchvision.ops import DeformConv2d

from lit_compress.measure import cost


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """On busy cores threads wait for each other far longer than they work."""
    torch.set_num_threads(1)


def starts(size: int, kernel: int, stride: int, padding: int, dilation: int) -> range:
    return range(-padding, size + padding - dilation * (kernel - 1), stride)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolution_macs_are_those_of_a_loop(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    groups, kernel, stride, padding, dilation = (
        draw(1, 3),
        draw(1, 3),
        draw(1, 2),
        draw(0, 2),
        draw(1, 2),
    )
    incoming, outgoing, batch = groups * draw(1, 2), groups * draw(1, 3), draw(1, 2)
    height, width = draw(5, 7), draw(5, 7)
    conv = nn.Conv2d(incoming, outgoing, kernel, stride, padding, dilation, groups)

    macs = 0  # of one image, however many there are
    for _ in range(outgoing):
        for _ in starts(height, kernel, stride, padding, dilation):
            for _ in starts(width, kernel, stride, padding, dilation):
                macs += incoming // groups * kernel * kernel

    counted = cost(nn.Sequential(conv), torch.zeros(batch, incoming, height, width))
    assert counted.macs == macs
    assert [layer.macs for layer in counted.layers] == [macs]
    assert counted.parameters == outgoing * incoming // groups * kernel**2 + outgoing


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.booleans(),
)
def test_linear_macs_and_parameters(rows: list[int], n: int, m: int, bias: bool) -> None:
    counted = cost(nn.Sequential(nn.Linear(n, m, bias=bias)), torch.zeros(*rows, n))
    positions = prod(rows[1:])  # the first dimension counts the examples
    assert counted.macs == sum(1 for _ in range(positions) for _ in range(m) for _ in range(n))
    assert counted.parameters == n * m + m * bias


def test_layers_of_a_net() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 5 * 5, 3),
    )
    nn.init.ones_(net[0].weight)
    net[0].weight.data[0] = 0
    nn.init.ones_(net[4].weight)
    nn.init.ones_(net[4].bias)
    counted = cost(net, torch.zeros(1, 2, 5, 5))
    rows = [
        (layer.name, layer.kind, layer.parameters, layer.nonzero, layer.macs)
        for layer in counted.layers
    ]
    assert rows == [
        ("0", "Conv2d", 72, 54, 25 * 4 * 2 * 9),
        ("1", "BatchNorm2d", 8, 4, 0),
        ("4", "Linear", 303, 303, 300),
    ]
    assert (counted.parameters, counted.nonzero) == (383, 361)
    assert counted.macs == 1800 + 300


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x1_0"])
def test_published_figures(name: str) -> None:
    from torchvision import models

    published = models.get_model_weights(name).DEFAULT.meta
    counted = cost(models.get_model(name), torch.zeros(1, 3, 224, 224))
    assert counted.parameters == published["num_params"]
    assert counted.macs / 1e9 == pytest.approx(published["_ops"], abs=6e-4)
    assert sum(layer.macs for layer in counted.layers) == counted.macs
    assert sum(layer.parameters for layer in counted.layers) == counted.parameters


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.inner(self.inner(x))) @ torch.ones(4, 5)


def test_a_layer_called_twice_costs_twice_and_tied_weights_count_once() -> None:
    counted = cost(Twice(), torch.zeros(3, 4))
    assert counted.parameters == 16 + 4 + 4
    assert counted.macs == 3 * 16 + 20
    assert {layer.name: layer.macs for layer in counted.layers} == {"inner": 32, "tied": 16}


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout().eval()
        self.line = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.drop(self.norm(x)))


@pytest.mark.parametrize(("width", "fits"), [(4, True), (7, False)])
def test_modes_statistics_and_gradients_are_left_alone(width: int, fits: bool) -> None:
    module = Mixed()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    if fits:
        cost(module, torch.ones(3, width))
    else:
        with pytest.raises(RuntimeError, match="running_mean"):
            cost(module, torch.ones(3, width))
    modes = (module.training, module.norm.training, module.drop.training, module.line.training)
    assert modes == (True, True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(3))
        self.line = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x * self.scale)


@pytest.mark.parametrize("module", [nn.Linear(3, 2), Scaled()], ids=["bare layer", "own parameter"])
def test_parameters_of_the_module_itself_are_a_layer_too(module: nn.Module) -> None:
    """Layers skipped the outermost module: a bare layer cost 6 MACs in no layer at all."""
    counted = cost(module, torch.zeros(1, 3))
    assert sum(layer.parameters for layer in counted.layers) == counted.parameters
    assert counted.layers[-1].macs == counted.macs == 6


def test_transformer_layers_are_counted() -> None:
    """In eval mode PyTorch fuses the layer into one operation, which counted as 0 MACs."""
    net = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True))
    counted = cost(net, torch.zeros(1, 5, 16))
    macs = {layer.name: layer.macs for layer in counted.layers}
    assert macs["0.linear1"] == macs["0.linear2"] == 5 * 16 * 32
    products = 2 * 5 * 5 * 16  # queries with keys, weights with values
    assert counted.macs == 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + products
    assert macs["0.self_attn"] == counted.macs - 5 * 2 * 16 * 32


@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_is_counted_whatever_way_torch_takes(need_weights: bool) -> None:
    """The way without weights is fused, and its products were left out."""
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(3, 5, 8)
    inputs = {"query": x, "key": x, "value": x, "need_weights": need_weights}
    assert cost(layer, inputs).macs == 5 * (8 * 24 + 8 * 8) + 2 * 5 * 5 * 8


def test_a_transformer_has_its_published_macs() -> None:
    """The products of its fused attention were left out: 16.85 billion in the place of 17.56."""
    from torchvision import models

    published = models.get_model_weights("vit_b_16").DEFAULT.meta["_ops"]
    with torch.device("meta"):
        network = models.vit_b_16()
    counted = cost(network.to_empty(device="cpu"), torch.zeros(1, 3, 224, 224))
    tokens, width = 14 * 14 + 1, 768
    layer = tokens * (4 * width**2 + 2 * width * 3072) + 2 * tokens**2 * width
    assert counted.macs == 14 * 14 * width * 3 * 16 * 16 + 12 * layer + width * 1000
    assert counted.macs / 1e9 == pytest.approx(published, abs=6e-4)


class Deformed(nn.Module):
    """Multiplies in an operator of which no formula is known."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = DeformConv2d(2, 3, 3)
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x, x.new_zeros(len(x), 18, 2, 2)))


def test_an_operator_without_a_formula_is_named() -> None:
    """Its products were left out without a word."""
    counted = cost(Deformed(), torch.zeros(2, 2, 4, 4))
    assert (counted.macs, counted.uncounted) == (4 * 3 * 4, ("torchvision::deform_conv2d",))
    assert cost(nn.Linear(3, 2), torch.zeros(1, 3)).uncounted == ()


def test_weights_that_a_parametrization_computes_count_once_they_are_used() -> None:
    """A trained network's weights are constants: their norm costs no time."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    x = torch.zeros(2, 3, 4, 4)
    expected = cost(plain, x).macs
    spectral_norm(plain[0])
    weight_norm(plain[2])
    assert cost(plain, x).macs == expected == 4 * 4 * 3 * 9 + 16 * 2


@pytest.mark.parametrize("enabled", [True, False])
def test_the_fast_path_of_attention_is_put_back(enabled: bool) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        cost(nn.Linear(3, 2), torch.zeros(1, 3))
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        return self.line(x * scale)


def test_an_example_may_be_a_mapping_of_keywords() -> None:
    x = torch.zeros(4, 3)
    assert cost(Keywords(), {"x": x, "scale": x}).macs == 6


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_count(kind: type[nn.RNNBase]) -> None:
    """An LSTM counted as nothing on the CPU, where torch runs it as an operation of its own."""
    layer = kind(5, 7, num_layers=2, bidirectional=True, batch_first=True)
    weights = sum(p.numel() for name, p in layer.named_parameters() if name.startswith("weight"))
    assert cost(layer, torch.zeros(3, 11, 5)).macs == 11 * weights


class Token(nn.Module):
    """A learned token that is expanded to the batch, and given to a child."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.query, self.key = nn.Linear(8, 16), nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.query(self.token.expand(len(x), -1, -1)) + self.key(x)


def test_a_learned_token_counts_and_is_trained_on() -> None:
    """The count raised "Expected gradient function to be set"."""
    net = Token()
    assert cost(net, torch.zeros(2, 4, 8)).macs == 8 * 16 * (1 + 4)
    assert all(parameter.requires_grad for parameter in net.parameters())


class BatchOfTwo(nn.Module):
    """Refuses a batch of one, as a squeeze or a batch norm may."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("more than one, please")
        return self.layer(x)


def test_macs_are_those_of_one_example_if_the_network_takes_no_batch_of_one() -> None:
    """A batch of two doubled the MACs."""
    counted = cost(BatchOfTwo(), torch.zeros(6, 4))
    assert (counted.macs, counted.layers[0].macs) == (24, 24)


def test_inputs_without_a_batch_are_one_example() -> None:
    conv = nn.Conv2d(3, 2, 1)
    assert cost(conv, torch.zeros(3, 5, 5)).macs == 3 * 2 * 25
    assert cost(nn.Linear(4, 6), torch.zeros(4)).macs == 24


@pytest.mark.filterwarnings("ignore:Using `torch.compile:UserWarning")  # of torch
def test_a_compiled_child_is_counted() -> None:
    """A compiled module that is no container was asked for its length: a TypeError."""
    child = BatchOfTwo()
    whole = nn.Sequential(torch.compile(child, backend="eager"), nn.ReLU())
    found, plain = cost(whole, torch.zeros(6, 4)), cost(child, torch.zeros(6, 4))
    assert (found.macs, found.parameters) == (plain.macs, plain.parameters)
