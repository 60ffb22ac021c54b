import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_compress.errors import CheckpointError, PlanError
from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan
from lit_compress.pruning.channels.resize import (
    UnprunedShapes,
    check_full_size,
    differing,
    resize_to,
    unpruned_shapes_of,
)


class Net(nn.Module):
    """Norms with and without tensors, a scale of shape (1, channels, 1, 1), a tied weight."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 8, kernel, padding=kernel // 2), nn.InstanceNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 12, 1), nn.GroupNorm(3, 12, affine=False), nn.ReLU()),
            *(nn.Conv2d(12, 10, 1), nn.BatchNorm2d(10), nn.PReLU(10)),
            *(nn.Conv2d(10, 10, 3, groups=10), nn.BatchNorm2d(10, affine=False)),
        )
        self.gain = nn.Parameter(torch.rand(1, 10, 1, 1))
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.body(x) * self.gain).mean((2, 3)))


IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def third(graph: ChannelGraph) -> frozenset[int]:
    return frozenset(n for g in graph.groups for n in g.channels[: max(1, len(g.channels) // 3)])


@pytest.fixture
def small(net: Net) -> tuple[Net, UnprunedShapes]:
    made = copy.deepcopy(net)
    graph = analyse(made, IMAGES)
    assert {group.name for group in graph.groups} >= {"body.0", "body.3", "body.6"}
    selected = third(graph)
    apply(make_plan(graph, selected), made)
    return made, UnprunedShapes.of(graph, selected)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def attributes(module: nn.Module) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in vars(layer).items() if isinstance(v, int)} for layer in module.modules()
    ]


def test_a_whole_network_shrinks_to_what_it_is_to_load(
    net: Net, small: tuple[Net, UnprunedShapes]
) -> None:
    pruned, original = small
    full = shapes(net)
    before = resize_to(net, pruned.state_dict(), original)
    assert before == {n: s for n, s in full.items() if s != shapes(pruned)[n]}
    net.load_state_dict(pruned.state_dict())
    assert attributes(net) == attributes(pruned)
    assert net.body[1].num_features == net.body[0].out_channels < 8
    assert net.body[4].num_channels == net.body[3].out_channels < 12
    assert net.gain.shape[1] == net.body[9].groups < 10
    assert torch.equal(net(IMAGES), pruned(IMAGES))


def test_a_pruned_network_grows_back_to_an_earlier_checkpoint(
    net: Net, small: tuple[Net, UnprunedShapes]
) -> None:
    pruned, _ = small
    graph = analyse(net, IMAGES)
    resize_to(pruned, net.state_dict(), UnprunedShapes.of(graph, frozenset()))
    pruned.load_state_dict(net.state_dict())
    assert attributes(pruned) == attributes(net)
    assert torch.equal(pruned(IMAGES), net(IMAGES))


def test_parameters_keep_their_identity_and_optimizers_go_on(
    net: Net, small: tuple[Net, UnprunedShapes]
) -> None:
    pruned, original = small
    held = dict(net.named_parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(IMAGES).sum().backward()
    resize_to(net, pruned.state_dict(), original)
    net.load_state_dict(pruned.state_dict())
    assert all(held[name] is parameter for name, parameter in net.named_parameters())
    assert net.body[0].weight.grad is None
    net(IMAGES).sum().backward()
    optimizer.step()
    assert not torch.equal(net.body[0].weight, pruned.body[0].weight)


def test_dtype_and_memory_format_stay(net: Net, small: tuple[Net, UnprunedShapes]) -> None:
    pruned, original = small
    net = net.to(torch.float64).to(memory_format=torch.channels_last)
    resize_to(net, pruned.state_dict(), original)
    assert net.body[3].weight.dtype == torch.float64
    assert net.body[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_tied_weights_stay_tied() -> None:
    def twins(width: int) -> nn.Sequential:
        made = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
        made[1].weight = made[0].weight
        return made

    whole, less = twins(6), twins(4)
    resize_to(whole, less.state_dict())
    assert whole[1].weight is whole[0].weight
    assert whole[1].in_features == whole[0].out_features == 4


class Twice(nn.Module):
    """A part with two names, as its weights do in the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
        self.first = self.net[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_parts_with_two_names_are_fitted_by_the_first() -> None:
    whole, pruned, rows = Twice(), Twice(), torch.randn(4, 3)
    graph = analyse(pruned, rows)
    selected = frozenset(graph.groups[0].channels[:2])
    apply(make_plan(graph, selected), pruned)
    before = resize_to(whole, pruned.state_dict(), UnprunedShapes.of(graph, selected))
    assert list(before) == ["net.0.weight", "net.0.bias", "net.2.weight"]
    whole.load_state_dict(pruned.state_dict())
    assert torch.equal(whole(rows), pruned(rows))


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (nn.Conv1d(3, 8, 1), nn.Conv1d(3, 8, 3)),
        (nn.Conv2d(3, 1, 3), nn.Conv2d(3, 1, 5)),
        (nn.ConvTranspose3d(1, 4, 1), nn.ConvTranspose3d(1, 4, 2)),
    ],
)
def test_kernels_of_another_size_are_refused(here: nn.Module, there: nn.Module) -> None:
    """Those of a convolution with one filter, or in one dimension, used to be made to fit."""
    with pytest.raises(CheckpointError, match="removed channels cannot explain"):
        resize_to(here, there.state_dict())


class Vectors(nn.Module):
    """Parameters of shape (1, 1, channels) and (channels, 1, 1), and a Conv1d between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.place = nn.Parameter(torch.rand(1, 1, 8))
        self.conv = nn.Conv1d(8, 6, 1)
        self.gain = nn.Parameter(torch.rand(6, 1, 1))
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.first(x) + self.place).relu().transpose(1, 2)
        return self.last(self.conv(x)[..., None] * self.gain)


def test_parameters_whose_channels_come_last_are_fitted_both_ways() -> None:
    torch.manual_seed(0)
    x, whole, pruned = torch.randn(2, 3, 4), Vectors().eval(), Vectors().eval()
    full, graph = copy.deepcopy(whole), analyse(pruned, x)
    selected = third(graph)
    apply(make_plan(graph, selected), pruned)
    assert (pruned.place.shape, pruned.gain.shape) == ((1, 1, 6), (4, 1, 1))
    resize_to(whole, pruned.state_dict(), UnprunedShapes.of(graph, selected))
    whole.load_state_dict(pruned.state_dict())
    assert torch.equal(whole(x), pruned(x))
    resize_to(whole, full.state_dict())
    whole.load_state_dict(full.state_dict())
    assert torch.equal(whole(x), full(x))
    assert attributes(whole) == attributes(full)


def test_equal_shapes_change_nothing(net: Net) -> None:
    before, state = attributes(net), copy.deepcopy(net.state_dict())
    assert resize_to(net, state) == {}
    assert differing(net, state) == []
    assert attributes(net) == before


def changed(small: tuple[Net, UnprunedShapes], **values: Tensor) -> dict[str, Tensor]:
    return {**small[0].state_dict(), **{k.replace("__", "."): v for k, v in values.items()}}


REFUSED = {
    "kernel": ({"body__0__weight": torch.zeros(6, 3, 5, 5)}, "removed channels cannot explain"),
    "dimensions": ({"body__0__weight": torch.zeros(6, 3)}, "removed channels cannot explain"),
    "empty": ({"body__0__weight": torch.zeros(0, 3, 3, 3)}, "removed channels cannot explain"),
    "wider": ({"body__0__weight": torch.zeros(9, 3, 3, 3)}, "pruning did not cut it"),
    "uncut": ({"head__bias": torch.zeros(1)}, "pruning did not cut it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_leaves_the_module_untouched(
    case: str, net: Net, small: tuple[Net, UnprunedShapes]
) -> None:
    values, message = REFUSED[case]
    before, state = attributes(net), copy.deepcopy(net.state_dict())
    with pytest.raises(CheckpointError, match=message):
        resize_to(net, changed(small, **values), small[1])
    assert attributes(net) == before
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_a_network_that_was_pruned_from_a_narrower_one_is_refused(
    net: Net, small: tuple[Net, UnprunedShapes]
) -> None:
    pruned, original = small
    narrow = UnprunedShapes({**original.shapes, "body.0.weight": (7, 3, 3, 3)}, original.widths)
    with pytest.raises(CheckpointError, match=r"whose body\.0\.weight is \(7, 3, 3, 3\)"):
        resize_to(net, pruned.state_dict(), narrow)


def test_a_norm_that_is_none_here_is_refused_before_anything_changes(
    net: Net, small: tuple[Net, UnprunedShapes]
) -> None:
    pruned, original = small
    for name in ("body.0", "elsewhere"):
        before = shapes(net)
        with pytest.raises(CheckpointError, match=f"in which {name} states a width"):
            resize_to(net, pruned.state_dict(), UnprunedShapes(original.shapes, {name: 4}))
        assert shapes(net) == before


def test_the_record_comes_back_from_json(small: tuple[Net, UnprunedShapes]) -> None:
    original = small[1]
    assert UnprunedShapes.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    assert original.widths == {"body.1": 6, "body.4": 8}
    assert original.shapes["gain"] == (1, 10, 1, 1)


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], 3, {"shapes": {}}, {"shapes": [], "norms": {}}),
        *({"shapes": {"a": size}, "norms": {}} for size in (3, "wide", "12", [None], [2.5])),
        *({"shapes": {"a": [size]}, "norms": {}} for size in (-1, 0, True, float("inf"))),
        *({"shapes": {}, "norms": {"a": size}} for size in (-1, 0, None, "4", float("nan"))),
    ],
)
def test_a_damaged_record_is_refused(content: Any) -> None:
    with pytest.raises(PlanError, match="the unpruned shapes in the checkpoint are damaged"):
        UnprunedShapes.from_dict(content)


def test_the_record_is_found_among_the_callbacks_of_a_checkpoint() -> None:
    record = {"shapes": {"a": [3]}, "norms": {}}
    states = {"Other": {"best": 1}, "None": None, "Pruning": {"original": record}}
    assert unpruned_shapes_of({"callbacks": states}) == UnprunedShapes({"a": (3,)})
    for nothing in ({}, {"callbacks": None}, {"callbacks": {"Pruning": {"original": None}}}):
        assert unpruned_shapes_of(nothing) is None


def test_only_the_network_that_was_pruned_is_taken_for_it(
    net: Net, small: tuple[Net, UnprunedShapes]
) -> None:
    pruned, original = small
    check_full_size(net, original)
    with pytest.raises(CheckpointError, match=r"whose body\..* is \(8.* here it is \(6"):
        check_full_size(pruned, original)
    with pytest.raises(CheckpointError, match="and here it is missing"):
        check_full_size(nn.Linear(2, 2), original)


def test_random_cuts_load_into_a_whole_network() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        torch.manual_seed(seed)
        whole, pruned = Net().eval(), Net().eval()
        graph = analyse(pruned, IMAGES)
        selected = frozenset(
            n
            for group in graph.groups
            for n in random.permutation(group.channels)[
                : random.integers(0, graph.removable(group) + 1)
            ].tolist()
        )
        apply(make_plan(graph, selected), pruned)
        resize_to(whole, pruned.state_dict(), UnprunedShapes.of(graph, selected))
        whole.load_state_dict(pruned.state_dict())
        assert torch.equal(whole(IMAGES), pruned(IMAGES))
