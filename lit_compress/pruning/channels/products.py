"""Products of two activations, as in an attention: how many MACs go with which channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from torch import Tensor

from lit_compress.pruning.channels.graph import FIXED, Key, Product
from lit_compress.pruning.channels.tracing.trace import Trace


def products_of(
    trace: Trace, channel_of: Mapping[Key, np.ndarray], rows: int = 1
) -> tuple[Product, ...]:
    """Return the products of a run whose size follows channels, those of the same channels as one.

    Args:
        trace: Trace of the run, which is finished. It may be of another run of the network than the
            channels are of.
        channel_of: As in :class:`ChannelGraph`.
        rows: Number of examples in the run.
    """
    roots, _ = trace.labels.resolve()
    number = np.full(len(roots) + 1, FIXED)  # the last is looked up by labels of no channel
    for key, use in trace.recording.uses.items():
        if key in channel_of:
            labels = use.labels.numpy()
            number[roots[labels[labels >= 0]]] = channel_of[key][labels >= 0]
    number[:-1] = number[roots]
    macs: dict[tuple[int, ...], int] = {}
    for product in trace.recording.products:
        factors = [_parts(number, twin) for twin in product.twins]
        channels: tuple[int, ...] = max(factors, key=len, default=())
        if any(channel != FIXED for channel in channels):
            macs[channels] = macs.get(channels, 0) + product.macs
    return tuple(Product(count // rows, np.array(parts)) for parts, count in macs.items())


def _parts(number: np.ndarray, twin: Tensor) -> tuple[int, ...]:
    """Return the channels of a factor, without the dimensions along which they are constant."""
    channels = number[twin.numpy()]
    for dim in range(channels.ndim):
        first = channels.take([0], dim)
        if (channels == first).all():
            channels = first
    return tuple(channels.flatten().tolist())


def without(products: Collection[Product], removed: Collection[int]) -> tuple[Product, ...]:
    """Return what is left of products when channels are removed.

    Args:
        products: The products.
        removed: Numbers of the channels.
    """
    left = []
    for product in products:
        channels = product.channels[~np.isin(product.channels, list(removed))]
        if len(channels):
            macs = product.macs * len(channels) // len(product.channels)
            left.append(Product(macs, channels))
    return tuple(left)
