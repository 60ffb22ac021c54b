from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_compress.pruning import ChannelGraph

Check = Callable[..., ChannelGraph]
Operation = Callable[[nn.Module, Tensor], Tensor]


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, -1, h, w)


def written(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 2:4] = 0
    return x


CASES: dict[str, tuple[Operation, int]] = {
    "permute": (lambda s, x: x.permute(0, 2, 3, 1).contiguous(), 8),
    "flatten": (lambda s, x: x.flatten(1), 8),
    "unflatten": (lambda s, x: x.flatten(2).unflatten(2, (4, 4)), 8),
    "reversed channels": (lambda s, x: x.flip(1), 8),
    "sum with reversed channels": (lambda s, x: x + x.flip(1), 4),
    "repeat": (lambda s, x: x.repeat(1, 2, 1, 1), 8),
    "repeat interleave": (lambda s, x: x.repeat_interleave(2, 1), 8),
    "cat": (lambda s, x: torch.cat([x, s.layer(x)], 1), 16),
    "cat along the image": (lambda s, x: torch.cat((x, s.layer(x)), dim=-1), 8),
    "stack": (lambda s, x: torch.stack([x, s.layer(x)], 2), 8),
    "chunk": (lambda s, x: torch.mul(*x.chunk(2, 1)), 4),
    "split in half": (lambda s, x: torch.sub(*x.split(x.shape[1] // 2, dim=1)), 4),
    "split of fixed size": (lambda s, x: torch.sub(*x.split(4, 1)), 0),
    "unequal split": (lambda s, x: x.split([2, 6], 1)[1], 0),
    "slice of channels": (lambda s, x: x[:, :4], 0),
    "slice of the image": (lambda s, x: x[:, :, 1:, ::2], 8),
    "ellipsis": (lambda s, x: x[..., 0], 8),
    "whole slice": (lambda s, x: x[:, : x.shape[1]], 8),
    "index list": (lambda s, x: x[:, [0, 3]], 0),
    "select": (lambda s, x: x.select(1, 2), 0),
    "roll of channels": (lambda s, x: x.roll(1, 1), 0),
    "roll of the image": (lambda s, x: x.roll(1, 2), 8),
    "shuffle": (lambda s, x: shuffle(x, 2), 4),
    "shuffle of torch": (lambda s, x: F.channel_shuffle(x, 2), 4),
    "shuffle in pairs": (lambda s, x: x.view(2, -1, 2, 4, 4).transpose(1, 2).flatten(1, 2), 4),
    "pixel shuffle": (lambda s, x: F.pixel_shuffle(x, 2), 2),
    "pixel unshuffle": (lambda s, x: F.pixel_unshuffle(x, 2), 8),
    "view of fixed size": (lambda s, x: x.view(-1, 8, 4, 4), 0),
    "write into a slice": (lambda s, x: written(x), 0),
}


@pytest.mark.parametrize(("operation", "channels"), CASES.values(), ids=CASES.keys())
def test_movement(between: Check, operation: Operation, channels: int) -> None:
    graph = between(operation, layer=nn.Conv2d(8, 8, 1))
    assert len(graph.channels) == channels


@pytest.mark.parametrize("dim", [None, 1, (1, 2)])
def test_squeeze_keeps_two_channels(between: Check, dim: int | tuple[int, ...] | None) -> None:
    def operation(s: nn.Module, x: Tensor) -> Tensor:
        return x.squeeze() if dim is None else x.squeeze(dim)

    assert len(between(operation).channels) == 6


def test_squeeze_of_the_image_keeps_none(between: Check) -> None:
    assert (
        len(between(lambda s, x: x.mean((2, 3), keepdim=True).squeeze(3).squeeze(-1)).channels) == 8
    )


def test_image_made_of_a_vector_loses_channels(between: Check) -> None:
    def operation(s: nn.Module, x: Tensor) -> Tensor:
        return s.conv(s.layer(x.flatten(1)).view(x.shape[0], -1, 2, 2))

    layers = {"layer": nn.Linear(128, 24), "conv": nn.Conv2d(6, 4, 1)}
    assert len(between(operation, **layers).channels) == 8 + 6 + 4


def test_token_joined_with_activations_goes_with_them(between: Check) -> None:
    """A class token kept all channels of a network."""

    def operation(s: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([s.token.expand(2, -1, -1), x.flatten(2).transpose(1, 2)], 1)

    graph = between(operation, token=nn.Parameter(torch.randn(1, 1, 8)))
    assert len(graph.channels) == 8
    assert ("token", 2) in graph.channel_of


def test_channels_joined_with_a_parameter_freeze(between: Check) -> None:
    def operation(s: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([s.map.expand(2, -1, -1, -1), x], 1)

    graph = between(operation, map=nn.Parameter(torch.randn(1, 2, 4, 4)))
    assert len(graph.channels) == 8
    assert "map" not in {name for name, _ in graph.channel_of}


def test_two_dimensions_of_channels_are_joined_by_the_other_one(between: Check) -> None:
    """A rotary embedding joins parts of each head."""

    def operation(s: nn.Module, x: Tensor) -> Tensor:
        parts = x.unflatten(1, (-1, 2))
        return torch.cat([parts, -parts], 2).flatten(1, 2)

    assert len(between(operation).channels) == 4
