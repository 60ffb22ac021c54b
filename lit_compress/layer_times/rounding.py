"""The multiple to which channels are rounded at no cost on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil

from lit_compress.layer_times.layer import Layer

#: The multiples that are tried.
MULTIPLES = (1, 2, 4, 8, 16, 32)
#: Time that rounding up may add, as a share.
SLACK = 0.02
#: Channels that rounding up may add, as a share: with a coarse multiple no small layer shrinks.
COARSE = 0.1


def free_multiple(
    layers: Sequence[Layer], kept: float, seconds: Callable[[Sequence[Layer]], Sequence[float]]
) -> int:
    """Return the largest multiple to which channels can be rounded up without losing time.

    Kernels compute channels in blocks, so that a layer with some channels more may take no longer.

    Args:
        layers: The layers of the network, in the order of its forward.
        kept: Share of the channels of each layer that is kept, in (0, 1].
        seconds: Returns the times of layers.

    Returns:
        1, 2, 4, 8, 16 or 32: the largest with which all layers together take at most 2 % longer
        than with the fastest of these, and have at most 10 % more channels.

    Example:
        >>> layers = [Layer(3, 640, (1,)), Layer(640, 640, (1,)), Layer(640, 10, (1,))]
        >>> def in_blocks(layers):
        ...     return [ceil(layer.outputs / 16) for layer in layers]
        >>> free_multiple(layers, 0.41, in_blocks)
        16
        >>> def by_channel(layers):
        ...     return [layer.outputs for layer in layers]
        >>> free_multiple(layers, 0.41, by_channel)
        8
    """
    rounded = {multiple: _rounded(layers, kept, multiple) for multiple in MULTIPLES}
    most = (1 + COARSE) * _channels(rounded[1])
    totals = {m: sum(seconds(one)) for m, one in rounded.items() if _channels(one) <= most}
    fastest = min(totals.values())
    return max(m for m, total in totals.items() if total <= (1 + SLACK) * fastest)


def _channels(layers: Sequence[Layer]) -> int:
    return sum(layer.outputs for layer in layers)


def _rounded(layers: Sequence[Layer], kept: float, multiple: int) -> list[Layer]:
    """Return layers with a share of their channels, rounded up to a multiple.

    The inputs of the first layer and the outputs of the last stay, as do layers with some groups.
    """

    def rounded(channels: int) -> int:
        return min(channels, multiple * ceil(channels * kept / multiple))

    found = []
    for place, layer in enumerate(layers):
        inputs = rounded(layer.inputs) if place else layer.inputs
        outputs = rounded(layer.outputs) if place < len(layers) - 1 else layer.outputs
        if layer.groups > 1:
            depthwise = layer.groups == layer.inputs == layer.outputs
            both = rounded(layer.inputs)
            new = replace(layer, inputs=both, outputs=both, groups=both) if depthwise else layer
        else:
            new = replace(layer, inputs=inputs, outputs=outputs)
        found.append(new)
    return found
