"""Weights that are computed are followed to the parameters behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.graph import ChannelGraph


class Standardised(nn.Conv2d):
    """Weight standardisation, as in BiT."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class ByBatchNorm(nn.Conv2d):
    """Weight standardisation with a gain, as NFNets write it."""

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1),
            None,
            None,
            weight=(self.gain * 0.3).view(-1),
            training=True,
            momentum=0.0,
        ).reshape_as(self.weight)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class LowRank(nn.Module):
    """What LoRA adds to a weight."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(2, columns)), nn.Parameter(torch.randn(rows, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view(*weight.shape[:2], *[1] * (weight.dim() - 2))


def low_rank(layer: nn.Conv2d) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", LowRank(*layer.weight.shape[:2]))
    return layer


def conv(wrap: Callable[[nn.Conv2d], nn.Module]) -> Callable[[int, int], nn.Module]:
    return lambda i, o: wrap(nn.Conv2d(i, o, 3, padding=1))


LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "standardised": lambda i, o: Standardised(i, o, 3, padding=1),
    "by batch norm": lambda i, o: ByBatchNorm(i, o, 3, padding=1),
    "weight norm": conv(parametrizations.weight_norm),
    "spectral norm": conv(parametrizations.spectral_norm),
    "old weight norm": conv(old_weight_norm),
    "old spectral norm": conv(old_spectral_norm),
    "low rank": conv(low_rank),
}


def network(layer: Callable[[int, int], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    body = [layer(3, 8), nn.ReLU(), layer(8, 6), nn.ReLU()]
    net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)).double()
    net(torch.randn(2, 3, 6, 6).double())  # the norms estimate their length once
    return net.eval()


def direction(weight: Tensor) -> Tensor:
    return F.normalize(weight.flatten(), dim=0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", LAYERS)
def test_filters_go_with_the_parameters_behind_the_weight(
    kind: str,
) -> None:
    """Such layers were frozen, and the layers before them."""
    net, x = network(LAYERS[kind]), torch.randn(4, 3, 6, 6).double()
    graph = analyse(net, x)
    assert sorted(len(group.channels) for group in graph.groups) == [6, 8]
    second = graph.groups[1]
    with torch.no_grad():
        hidden = net[:4](x)  # filters of the last layer: nothing else depends on them
        weight = net[2].weight.clone()
        apply(make_plan(graph, second.channels[:2]), net)
        if "spectral" in kind:  # the largest singular value is of what is left
            net(x)
            largest = torch.linalg.matrix_norm(net[2].weight.flatten(1), 2).item()
            assert largest == pytest.approx(1, rel=0.05)  # without a further step
            torch.testing.assert_close(direction(net[2].weight), direction(weight[2:]))
        else:
            torch.testing.assert_close(net[:4](x), hidden[:, 2:])
        apply(make_plan(graph, graph.groups[0].channels[:4]), net)
        assert net(x).isfinite().all()
    assert (net[0].out_channels, net[2].in_channels, net[2].out_channels) == (4, 4, 4)


@pytest.mark.parametrize("layer", [LAYERS["weight norm"], LAYERS["low rank"]])
def test_what_is_left_is_computed_from_what_is_left(layer: Callable[[int, int], nn.Module]) -> None:
    """Zeros in the parameter behind the weight have no part in its length, so both agree."""
    net, x = network(layer), torch.randn(4, 3, 6, 6).double()
    graph = analyse(net, x)
    plan = make_plan(graph, graph.groups[0].channels[:3])
    own = dict(net.named_parameters())
    with torch.no_grad():
        masked = network(layer)
        masked.load_state_dict(net.state_dict())
        for cut in plan.cuts:
            if cut.dim == 1:
                dict(masked.named_parameters())[cut.tensor][:, :3] = 0
        apply(plan, net)
        torch.testing.assert_close(net(x), masked(x))
    assert own.keys() == dict(net.named_parameters()).keys()


def graph_of(forward: Callable[[nn.Module, Tensor], Tensor], **parts: object) -> ChannelGraph:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(6, 2)
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(forward(self, self.first(x)))

    return analyse(Net().eval(), torch.randn(3, 4))


WEIGHTS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "transposed": ((8, 6), lambda w: w.t()),
    "reshaped": ((2, 3, 8), lambda w: w.reshape(6, -1)),
    "flipped": ((6, 8), lambda w: w.flip(0)),
    "a part": ((3, 6, 8), lambda w: w[1]),
    "joined": ((3, 8), lambda w: torch.cat([w, 2 * w])),
    "of columns": ((6, 8), lambda w: F.normalize(w, dim=1)),
    "softmax": ((6, 8), lambda w: w.softmax(1)),
    "scaled": ((6, 8), lambda w: w / w.norm()),
}


@pytest.mark.parametrize(("shape", "compute"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_channels_are_followed_through(
    shape: tuple[int, ...], compute: Callable[[Tensor], Tensor]
) -> None:
    weight = nn.Parameter(torch.randn(shape))
    graph = graph_of(lambda s, x: F.linear(x, compute(s.weight)), weight=weight)
    read = {8 if key[1] == shape.index(8) else 6 for key in graph.channel_of if key[0] == "weight"}
    assert 8 in read
    assert len([g for g in graph.groups if g.name == "first"]) == 1


def test_a_weight_that_depends_on_the_input_keeps_its_inputs() -> None:
    weight = nn.Parameter(torch.randn(6, 8))
    graph = graph_of(lambda s, x: F.linear(x, s.weight * x[:, :, None].mean(2)[:1]), weight=weight)
    assert not graph.channels
    assert "does not follow from the parameters" in str([str(f.reason) for f in graph.frozen])


def test_a_number_from_the_input_freezes_only_what_it_depends_on() -> None:
    weight = nn.Parameter(torch.randn(6, 8))
    graph = graph_of(lambda s, x: F.linear(x, s.weight * x.mean()), weight=weight)
    assert [group.name for group in graph.groups] == ["weight"]
    assert "mean" in str([str(f.reason) for f in graph.frozen if f.tensor == "first.weight"])


FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "unit columns": lambda w: F.normalize(w, dim=0),
    "less the mean of all": lambda w: w - w.mean(),
    "rounded to the largest": lambda w: (w / w.abs().amax() * 7).round(),
    "added up": lambda w: w.cumsum(0),
}


@pytest.mark.parametrize("compute", FILTERS.values(), ids=FILTERS.keys())
def test_filters_that_are_normalised_together_stay(compute: Callable[[Tensor], Tensor]) -> None:
    """All other filters had other values afterwards, and nothing said so."""
    weight = nn.Parameter(torch.randn(6, 8))
    graph = graph_of(lambda s, x: F.linear(x, compute(s.weight)), weight=weight)
    assert ("weight", 0) not in graph.channel_of


def test_one_length_for_all_filters_keeps_them() -> None:
    layer = parametrizations.weight_norm(nn.Linear(8, 6), dim=None)
    graph = graph_of(lambda s, x: s.layer(x), layer=layer)
    assert {name for name, dim in graph.channel_of if dim == 0} <= {"first.weight", "first.bias"}


@pytest.mark.parametrize("compute", [lambda w: w @ w.T, lambda w: (w @ w.T).softmax(-1)])
def test_a_weight_of_itself_is_frozen_and_raises_nothing(
    compute: Callable[[Tensor], Tensor],
) -> None:
    weight = nn.Parameter(torch.randn(8, 3))
    graph = graph_of(lambda s, x: F.linear(x, compute(s.weight))[:, :6], weight=weight)
    assert ("weight", 0) not in graph.channel_of
