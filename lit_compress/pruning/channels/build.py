"""Build the channel graph of a network from the trace of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from lit_compress.pruning.channels.graph import (
    FIXED,
    ChannelGraph,
    Frozen,
    Group,
    Key,
    count_of,
    grouped,
    removable_of,
)
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.records import Recording
from lit_compress.pruning.channels.tracing.trace import Trace

UNUSED = Reason("is not read by any layer")
UNSEEN = Reason("is not used in any torch call that can be traced")


def build(trace: Trace, closed: Mapping[Key, Reason]) -> ChannelGraph:
    """Return the channel graph of a finished trace.

    Args:
        trace: Trace of a run, with the outputs of the network frozen.
        closed: Further reasons why channels cannot be removed, by tensor and dimension.
    """
    recording = trace.recording
    for (tensor, _), use in recording.uses.items():
        if tensor in recording.opaque:
            trace.labels.freeze(use.labels, recording.opaque[tensor])
        if (tensor, use.dim) in closed:
            trace.labels.freeze(use.labels, closed[tensor, use.dim])
    roots, reasons = trace.labels.resolve()
    reasons = _freeze_dead_ends(recording, roots, reasons, trace.labels.reasons)
    roles = {key: use.role for key, use in recording.uses.items()}
    number, channel_of = _channel_numbers(recording, roots, reasons)
    groups = grouped(channel_of, roles)
    if fixed := _fixed_groups(trace, channel_of, groups):
        reasons = _freeze_groups(trace, number, fixed, reasons)
        number, channel_of = _channel_numbers(recording, roots, reasons)
        groups = grouped(channel_of, roles)
    return ChannelGraph(
        channel_of=channel_of,
        roles={key: roles[key] for key in channel_of},
        groups=groups,
        frozen=(*_frozen_filters(trace, reasons), *_frozen_weights(trace)),
        shapes={name: tuple(trace.tensors[name].shape) for name, _ in channel_of},
        positions=dict(recording.positions),
        min_indices={
            key: least for key, least in recording.min_indices.items() if key in channel_of
        },
        widths={
            name: channels
            for name, labels in recording.widths.items()
            if ((channels := _look_up(number, labels)) >= 0).any()
        },
        channel_count=count_of(channel_of),
    )


def _frozen_filters(trace: Trace, reasons: np.ndarray) -> list[Frozen]:
    """Return the filters whose labels are frozen."""
    texts = trace.labels.reasons
    frozen = []
    for key, use in trace.recording.uses.items():
        if use.role in ("filter", "depthwise"):
            labels = use.labels.numpy()
            why = np.where(labels >= 0, reasons[labels], -1)
            frozen += [
                Frozen(*key, tuple(np.flatnonzero(why == reason).tolist()), texts[reason])
                for reason in np.unique(why[why >= 0])
            ]
    return frozen


def _frozen_weights(trace: Trace) -> list[Frozen]:
    """Return the weights that the trace could not follow, or that no call uses."""
    recording = trace.recording
    filters = {name for (name, _), use in recording.uses.items() if use.role == "filter"}
    return [
        Frozen(name, 0, tuple(range(len(tensor))), recording.opaque.get(name, UNSEEN))
        for name, tensor in trace.tensors.items()
        if isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and len(tensor) < tensor.numel()
        if name not in filters and (name in recording.opaque or name not in recording.seen)
    ]


def _channel_numbers(
    recording: Recording, roots: np.ndarray, reasons: np.ndarray
) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
    """Return the channel of each label, and the channel of each index of each tensor."""
    number = _renumbered(roots, reasons)
    channel_of = {key: _look_up(number, use.labels) for key, use in recording.uses.items()}
    return number, {key: channels for key, channels in channel_of.items() if (channels >= 0).any()}


def _fixed_groups(
    trace: Trace, channel_of: Mapping[Key, np.ndarray], groups: tuple[Group, ...]
) -> list[Group]:
    """Return the groups in which no channel can be removed, since at least one must remain."""
    return [
        group
        for group in groups
        if not removable_of(channel_of, trace.recording.min_indices, group)
    ]


def _freeze_groups(
    trace: Trace, number: np.ndarray, groups: list[Group], reasons: np.ndarray
) -> np.ndarray:
    """Return the reasons by label, with the channels of the given groups frozen too."""
    reasons = reasons.copy()
    for group in groups:
        member = np.isin(number, group.channels)
        tie = trace.labels.tied_by(member)
        why = "can only be removed together with all the others" if tie else "is the only one"
        if len(group.channels) > 1:
            why = "is one of the two that a grouped convolution or a norm must keep"
        trace.labels.reasons.append(replace(tie, why=why) if tie else Reason(why))
        reasons[member] = len(trace.labels.reasons) - 1
    return reasons


def _look_up(values: np.ndarray, labels: Tensor) -> np.ndarray:
    """Return the value of each label, FIXED where there is no label."""
    index = labels.numpy()
    if not len(values):
        return np.full(len(index), FIXED)
    found: np.ndarray = np.where(index >= 0, values[index], FIXED)
    return found


def _freeze_dead_ends(
    recording: Recording, roots: np.ndarray, reasons: np.ndarray, texts: list[Reason]
) -> np.ndarray:
    """Return the reasons by label, with the channels that no layer reads frozen too."""
    read = np.zeros(len(roots), bool)
    for use in recording.uses.values():
        if use.role == "input":
            labels = use.labels.numpy()
            read[roots[labels[labels >= 0]]] = True
    texts.append(UNUSED)
    return np.where((reasons < 0) & ~read[roots], len(texts) - 1, reasons)


def _renumbered(roots: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Return, by label, the number of its channel; FIXED if it cannot be removed."""
    removable = reasons < 0
    number = np.full(len(roots), FIXED)
    number[removable] = np.unique(roots[removable], return_inverse=True)[1]
    return number
