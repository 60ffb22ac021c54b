"""The layers of a network, by the shapes that their time depends on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_compress.layer_times import Layer, layers_of
from lit_compress.layer_times.file import input_array


def test_layers_in_the_order_of_the_forward() -> None:
    conv = nn.Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), dilation=(1, 2), groups=2)
    net = nn.Sequential(nn.Conv1d(2, 4, 3, padding="same"), nn.Unflatten(2, (10, 12)), conv)
    first, second = layers_of(net, torch.rand(3, 2, 120))
    assert first == Layer(2, 4, (120,), 1, (3,), (1,), (1, 1), (1,))
    assert second == Layer(4, 8, (10, 12), 2, (3, 5), (2, 2), (1, 2, 1, 2), (1, 2))


def test_rows_of_a_linear_layer_are_those_of_one_example() -> None:
    net = nn.Linear(6, 2)
    assert [layers_of(net, torch.rand(5, *rows, 6))[0].space for rows in ((), (7,), (2, 3))] == [
        (1,),
        (7,),
        (6,),
    ]


def test_a_layer_that_is_called_twice_is_there_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.unused = nn.Linear(3, 9)

        def forward(self, first: Tensor, *, second: Tensor) -> Tensor:
            return self.layer(input=self.layer(first) + second)  # type: ignore[no-any-return]

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Twice()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x, second=x)  # type: ignore[no-any-return]

    assert [layer.outputs for layer in layers_of(Named(), torch.rand(2, 3))] == [3, 3]


def test_no_hook_stays() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    layers_of(net, torch.rand(2, 3))
    assert not net[0]._forward_pre_hooks


def test_a_kernel_with_gaps_is_padded_by_its_whole_size() -> None:
    conv = nn.Conv1d(2, 4, 4, padding="same", dilation=2)
    (layer,) = layers_of(conv, torch.rand(1, 2, 9))
    assert layer.padding == (3, 3)
    assert input_array(layer, 3).shape == (3, 9, 2)
