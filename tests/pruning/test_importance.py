import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import InvalidArgumentError, PatternError
from lit_compress.pruning import ChannelGraph, Importance, analyse
from lit_compress.pruning.importance import (
    L1,
    L2,
    BatchNormScale,
    Fpgm,
    Random,
    Taylor,
    importance_of,
    layer_scores,
    norm_weights,
    scores_by_channel,
)


class Net(nn.Module):
    """Two convolutions that are added, a transposed one, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.two = nn.Conv2d(3, 6, 1)
        self.up = nn.ConvTranspose2d(6, 4, 2)
        self.slope = nn.PReLU(4)
        self.head = nn.Linear(4, 2)
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x)) + self.two(x)
        return self.head(self.slope(self.up(x.relu())).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def graph(net: Net) -> ChannelGraph:
    return analyse(net, torch.randn(2, 3, 6, 6))


def filters(net: Net) -> dict[str, list[list[float]]]:
    """Each filter's weights as a plain list; a transposed convolution has them in dimension 1."""
    one, two, up = net.one.weight, net.two.weight, net.up.weight
    return {
        "one.weight": [one[i].flatten().tolist() for i in range(6)],
        "two.weight": [two[i].flatten().tolist() for i in range(6)],
        "up.weight": [up[:, i].flatten().tolist() for i in range(4)],
    }


NAIVE = {
    "l1": lambda own, _: sum(abs(w) for w in own),
    "l2": lambda own, _: math.sqrt(sum(w * w for w in own)),
    "fpgm": lambda own, layer: sum(math.dist(own, other) for other in layer),
}


@pytest.mark.parametrize("name", NAIVE)
def test_scores_are_those_of_a_naive_loop(name: Any, net: Net, graph: ChannelGraph) -> None:
    scores = layer_scores(net, graph, importance_of(name))
    expected = {
        layer: [NAIVE[name](own, rows) for own in rows] for layer, rows in filters(net).items()
    }
    assert scores.keys() == expected.keys()  # the head's filters cannot be removed
    for layer, score in scores.items():
        assert score.dtype == torch.float64
        assert score.tolist() == pytest.approx(expected[layer], rel=1e-4)


def test_taylor_is_the_square_of_the_sum_of_weight_times_gradient(
    net: Net, graph: ChannelGraph
) -> None:
    net(torch.randn(4, 3, 6, 6)).square().sum().backward()
    scores = layer_scores(net, graph, Taylor())
    for layer, rows in filters(net).items():
        gradient = net.get_parameter(layer).grad
        gradient = gradient.movedim(1, 0) if layer == "up.weight" else gradient
        products = [
            sum(w * g for w, g in zip(own, gradient[i].flatten().tolist(), strict=True))
            for i, own in enumerate(rows)
        ]
        assert scores[layer].tolist() == pytest.approx([p * p for p in products], rel=1e-3)


def test_taylor_has_no_score_where_there_is_no_gradient(net: Net, graph: ChannelGraph) -> None:
    assert layer_scores(net, graph, Taylor()) == {}
    with pytest.raises(InvalidArgumentError, match="none has been computed"):
        Taylor().score(net.one.weight, None)


def test_taylor_leaves_out_a_step_that_overflowed_as_loss_scalers_do(
    net: Net, graph: ChannelGraph
) -> None:
    net(torch.randn(4, 3, 6, 6)).sum().backward()
    net.one.weight.grad[0, 0, 0, 0] = torch.inf
    assert layer_scores(net, graph, Taylor()).keys() == {"two.weight", "up.weight"}


def test_bn_scale_reads_norms_and_nothing_else(net: Net, graph: ChannelGraph) -> None:
    scores = layer_scores(net, graph, BatchNormScale())
    assert scores.keys() == norm_weights(net) == {"norm.weight"}
    assert scores["norm.weight"].tolist() == [abs(w) for w in net.norm.weight.tolist()]
    ranked = scores_by_channel(graph, scores, BatchNormScale())
    tied, alone = sorted(graph.groups, key=lambda group: -len(group.channels))
    assert not np.isnan(ranked[list(tied.channels)]).any()
    assert np.isnan(ranked[list(alone.channels)]).all()


def test_random_is_fixed_by_its_seed() -> None:
    weight = torch.ones(50, 3)
    state = torch.get_rng_state()
    first = Random().score(weight, None)
    assert torch.equal(first, Random(0).score(weight * 2, None))
    assert not torch.equal(first, Random(1).score(weight, None))
    assert first.unique().numel() == 50
    assert torch.equal(torch.get_rng_state(), state)


def test_a_channel_has_the_mean_of_its_layers_scores_each_divided_by_its_mean(
    net: Net, graph: ChannelGraph
) -> None:
    scores = layer_scores(net, graph, L2())
    ranked = scores_by_channel(graph, scores, L2())
    norms = {n: [NAIVE["l2"](own, rows) for own in rows] for n, rows in filters(net).items()}
    one, two, up = (np.array(norms[n]) / np.mean(norms[n]) for n in norms)
    tied = graph.channel_of["one.weight", 0].tolist()
    assert tied == graph.channel_of["two.weight", 0].tolist()
    assert ranked[tied].tolist() == pytest.approx(((one + two) / 2).tolist())
    assert ranked[graph.channel_of["up.weight", 1]].tolist() == pytest.approx(up.tolist())


def test_absolute_scores_add_up_over_filters_of_a_channel(net: Net, graph: ChannelGraph) -> None:
    net(torch.randn(4, 3, 6, 6)).square().sum().backward()
    scores = layer_scores(net, graph, Taylor())
    ranked = scores_by_channel(graph, scores, Taylor())
    tied = graph.channel_of["one.weight", 0]
    total = scores["one.weight"] + scores["two.weight"]
    assert ranked[tied].tolist() == pytest.approx(total.tolist())


def test_layers_of_zeros_score_zero(net: Net, graph: ChannelGraph) -> None:
    nn.init.zeros_(net.up.weight)
    ranked = scores_by_channel(graph, layer_scores(net, graph, L1()), L1())
    assert not ranked[graph.channel_of["up.weight", 1]].any()


def test_scale_of_a_layer_does_not_matter_between_layers(net: Net, graph: ChannelGraph) -> None:
    before = scores_by_channel(graph, layer_scores(net, graph, L1()), L1())
    with torch.no_grad():
        net.two.weight.mul_(1000)
    assert scores_by_channel(graph, layer_scores(net, graph, L1()), L1()) == pytest.approx(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_scored_in_float_at_least(
    dtype: torch.dtype, net: Net, graph: ChannelGraph
) -> None:
    with torch.no_grad():
        net.one.weight.mul_(300)
    expected = layer_scores(net, graph, L2())
    found = layer_scores(net.to(dtype), graph, L2())  # squares that float16 cannot hold
    assert found["one.weight"].tolist() == pytest.approx(expected["one.weight"].tolist(), rel=1e-2)


def test_tensors_given_are_scored_in_the_place_of_the_own(net: Net, graph: ChannelGraph) -> None:
    scores = layer_scores(net, graph, L1(), {"one.weight": torch.ones(6, 3, 3, 3)})
    assert scores["one.weight"].tolist() == [27.0] * 6


def test_nan_is_refused_by_name(net: Net, graph: ChannelGraph) -> None:
    with torch.no_grad():
        net.up.weight[0, 2] = torch.nan
    for importance in (L1(), Random()):
        with pytest.raises(PatternError, match=r"up\.weight holds NaN"):
            layer_scores(net, graph, importance)


def test_infinity_is_refused_by_name(net: Net, graph: ChannelGraph) -> None:
    """A layer's mean would be infinite too, and none of its filters have a rank."""
    with torch.no_grad():
        net.up.weight[0, 2] = torch.inf
    with pytest.raises(PatternError, match=r"L1 gives a filter of up\.weight a score that is not"):
        layer_scores(net, graph, L1())


class Own(Importance):
    def __init__(self, result: Any) -> None:
        self.result = result

    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return self.result(weight)


def test_an_own_importance_sees_filters_first_and_its_negative_scores_stay(
    net: Net, graph: ChannelGraph
) -> None:
    shapes = []

    def result(weight: Tensor) -> Tensor:
        shapes.append(tuple(weight.shape))
        return -torch.arange(1.0, len(weight) + 1)

    scores = layer_scores(net, graph, Own(result))
    assert shapes == [(6, 3, 3, 3), (6, 3, 1, 1), (4, 6, 2, 2)]
    ranked = scores_by_channel(graph, scores, Own(result))
    assert ranked[graph.channel_of["up.weight", 1]].tolist() == [-1, -2, -3, -4]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda w: w.sum(), r"\(6,\) for one\.weight, got shape \(\)"),
        (lambda w: w.abs(), r"got shape \(6, 3, 3, 3\)"),
        (lambda w: torch.ones(len(w) - 1), r"got shape \(5,\)"),
        (lambda w: [1.0] * len(w), "got list"),
        (lambda w: None, "got NoneType"),
    ],
)
def test_an_own_importance_that_gives_no_score_a_filter_is_refused(
    result: Any, message: str, net: Net, graph: ChannelGraph
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"Own.score must return .*{message}"):
        layer_scores(net, graph, Own(result))


def test_names_and_objects_are_taken_others_refused() -> None:
    names = ("l1", "l2", "bn_scale", "taylor", "fpgm", "random")
    assert [type(importance_of(name)) for name in names] == [
        *(L1, L2, BatchNormScale, Taylor, Fpgm, Random)
    ]
    own = Own(None)
    assert importance_of(own) is own
    for wrong in ("l3", None, L1):
        with pytest.raises(InvalidArgumentError, match="importance must be one of l1, l2"):
            importance_of(wrong)  # type: ignore[arg-type]
