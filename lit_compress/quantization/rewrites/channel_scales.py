"""How much each channel is scaled so that channels of one range lie nearer to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_compress.quantization.rewrites.channel_flow import ChannelFlow, Read
from lit_compress.quantization.rewrites.channel_ranges import Seen

#: Share of the largest range below which a channel counts as this small.
LEAST = 1 / 64
#: Shares of a difference, as powers, that may be moved into weights that read many channels.
MOVES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def channel_scales(flow: ChannelFlow, seen: Seen, largest: int) -> Tensor:
    """Return the factor of each channel's readers, and divisor of its maker.

    Channels of one range have one share of their differences moved: that with which their
    readers make the least noise.

    Args:
        flow: Where the channels go.
        seen: What the channels were like.
        largest: What the largest weights will be.
    """
    groups = _groups(flow)
    top = seen.magnitude.scatter_reduce(0, groups, seen.magnitude, "amax")[groups]
    many, single = torch.zeros(2, flow.count, dtype=torch.bool)
    for read in flow.reads:
        (single if read.alone else many)[read.channels] = True
    free = (many | single) & (top > 0)
    for channels in flow.frozen:
        free[channels.long()] = False
    share = (seen.magnitude / top.clamp(min=torch.finfo(top.dtype).tiny)).clamp(LEAST, 1)
    tried = torch.stack(
        [
            torch.where(free, share**moved, 1.0)
            for moved in (torch.where(many, each, 1.0) for each in MOVES)
        ]
    )
    reads = [_ManyRead.of(read) for read in flow.reads if not read.alone]
    noise = torch.stack([_noise(scales, seen, groups, reads, largest) for scales in tried])
    return tried.gather(0, noise.argmin(0)[groups][None])[0]


def _noise(
    scales: Tensor, seen: Seen, groups: Tensor, reads: Sequence[_ManyRead], largest: int
) -> Tensor:
    """Return, by group, the noise that its readers would give, relative to what they give.

    Args:
        scales: Of all channels.
        seen: What the channels were like.
        groups: Which channels have one range.
        reads: Readers of many channels: the others' filters have ranges of their own.
        largest: What the largest weights will be.
    """
    high = torch.zeros(len(scales)).scatter_reduce(0, groups, seen.high / scales, "amax")
    low = torch.zeros(len(scales)).scatter_reduce(0, groups, seen.low / scales, "amin")
    found = torch.zeros(len(scales))
    for read in reads:
        group = groups[read.channels[0]]
        own, power = scales[read.channels], seen.power[read.channels]
        step = (high[group] - low[group]) / 255
        of_input = (read.squares * own.square()).sum() * step.square()
        steps = (read.peaks * own).amax(1) / largest
        of_weight = steps.square().sum() * read.kernel * (power / own.square()).sum()
        signal = (read.squares * power).sum().clamp(min=torch.finfo(torch.float32).tiny)
        found[group] += (of_input + of_weight) / signal
    return found


def _groups(flow: ChannelFlow) -> Tensor:
    """Return, for each channel, a number that it shares with all that have its range."""
    groups = torch.zeros(flow.count, dtype=torch.long)
    for start, size in flow.makers():
        groups[start : start + size] = start
    joins = [join.long() for join in flow.joins]
    while any(bool((groups[join] != groups[join].min()).any()) for join in joins):
        for join in joins:
            for group in set(groups[join].tolist()):
                groups[groups == group] = groups[join].min()
    return groups


@dataclass(frozen=True)
class _ManyRead:
    """A weight that reads many channels: what its noise depends on, by channel.

    Attributes:
        channels: Numbers of what it reads.
        squares: Sums of its squares.
        peaks: For each output, its largest magnitudes.
        kernel: How many weights of an output read one channel.
    """

    channels: Tensor
    squares: Tensor
    peaks: Tensor
    kernel: int

    @classmethod
    def of(cls, read: Read) -> _ManyRead:
        rows = read.weight.float().reshape(*read.weight.shape[:2], -1)
        return cls(read.channels, rows.square().sum((0, 2)), rows.abs().amax(2), rows.shape[2])
