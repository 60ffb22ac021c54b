from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_compress.pruning import ChannelGraph

Check = Callable[..., ChannelGraph]
PASS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "skip": lambda s, x: x + s.layer(x),
    "subtraction with a factor": lambda s, x: torch.sub(x, s.layer(x), alpha=0.5),
    "in place": lambda s, x: s.layer(x).add_(x).relu_(),
    "augmented": lambda s, x: s.layer(x).__imul__(x),
    "choice": lambda s, x: torch.where(x > 0, x, s.layer(x)),
    "out": lambda s, x: torch.add(x, s.layer(x), out=torch.empty_like(x)),
    "three": lambda s, x: torch.addcmul(x, s.layer(x), x, value=0.3),
    "gate": lambda s, x: x * s.layer(x.mean((2, 3), keepdim=True)).sigmoid(),
    "sum of a list": lambda s, x: sum([x, s.layer(x), x.tanh()]),
    "mask": lambda s, x: s.layer(x).masked_fill(x > 0, 0.5),
}


@pytest.mark.parametrize("operation", PASS.values(), ids=PASS.keys())
def test_two_layers_are_tied(
    between: Check, operation: Callable[[nn.Module, Tensor], Tensor]
) -> None:
    graph = between(operation, layer=nn.Conv2d(8, 8, 1))
    assert len(graph.channels) == 8


SCALES: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "(C, 1, 1)": ((8, 1, 1), lambda w: w),
    "(1, C, 1, 1)": ((1, 8, 1, 1), lambda w: w),
    "viewed": ((8,), lambda w: w.view(1, -1, 1, 1)),
    "indexed": ((8,), lambda w: w[None, :, None, None]),
    "of a table": ((5, 8), lambda w: w[2][:, None, None]),
    "computed": ((8,), lambda w: w.exp().reshape(-1, 1, 1)),
    "over the image": ((8, 4, 4), lambda w: w),
}


@pytest.mark.parametrize(("shape", "change"), SCALES.values(), ids=SCALES.keys())
def test_scale_of_the_model_is_cut(
    between: Check, shape: tuple[int, ...], change: Callable[[Tensor], Tensor]
) -> None:
    weight = nn.Parameter(torch.rand(shape) + 0.5)
    graph = between(lambda s, x: x * change(s.weight), weight=weight)
    assert len(graph.channels) == 8
    assert ("weight", list(shape).index(8)) in graph.channel_of


def test_scale_computed_from_two_is_cut_in_both(between: Check) -> None:
    first, second = (nn.Parameter(torch.rand(8, 1, 1)) for _ in range(2))
    graph = between(lambda s, x: x * (s.a + s.b), a=first, b=second)
    assert len(graph.channels) == 8
    assert {("a", 0), ("b", 0)} <= set(graph.channel_of)


def test_constant_of_fixed_size_freezes(between: Check) -> None:
    assert not between(lambda s, x: x * torch.arange(8.0)[:, None, None]).channels


def test_one_channel_for_many_stays(between: Check) -> None:
    graph = between(lambda s, x: x * s.layer(x), layer=nn.Conv2d(8, 1, 1))
    assert len(graph.channels) == 8
    assert {frozen.tensor for frozen in graph.frozen} == {"layer.weight", "last.weight"}


def test_value_that_goes_to_python_freezes(between: Check) -> None:
    assert not between(lambda s, x: x * float(x[0, 0, 0, 0])).channels


def test_result_of_one_network_that_is_added_to_an_input_stays(between: Check) -> None:
    assert not between(lambda s, x: x + torch.ones(2, 8, 4, 4)).channels


def test_channels_that_stay_give_the_first_line_that_keeps_them(between: Check) -> None:
    """The first channel of all is tied and frozen like the others."""

    def operation(s: nn.Module, x: Tensor) -> Tensor:
        none = torch.zeros(2, 3, 4, 4, dtype=x.dtype)
        both = torch.cat([x, none], 1) + torch.cat([none, s.layer(x)], 1)
        return both + s.wide(x)

    graph = between(operation, layer=nn.Conv2d(8, 8, 1), wide=nn.Conv2d(8, 11, 1))
    (frozen,) = (frozen for frozen in graph.frozen if frozen.tensor == "wide.weight")
    assert frozen.indices == (0, 1, 2, 8, 9, 10)
