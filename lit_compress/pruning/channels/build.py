"""The graph of a network's channels, from a run in which labels followed them."""

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
from lit_compress.pruning.channels.labels import Reason
from lit_compress.pruning.channels.trace import Recording, Trace

UNUSED = Reason("no layer reads it")
UNSEEN = Reason("no torch call that can be seen uses it")
UNMADE = Reason("no layer of the model makes it")


def build(trace: Trace, closed: Mapping[Key, Reason]) -> ChannelGraph:
    """Return the graph of a finished trace.

    Args:
        trace: The watched run, its outputs frozen.
        closed: Tensors and dimensions whose channels cannot go for a reason found elsewhere.
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
    number, cut = _owners(recording, roots, reasons)
    groups = grouped(cut, roles)
    if stuck := _stuck(trace, cut, groups):
        reasons = _freeze_stuck(trace, number, stuck, reasons)
        number, cut = _owners(recording, roots, reasons)
        groups = grouped(cut, roles)
    frozen = tuple(
        found
        for key, use in recording.uses.items()
        if use.role in ("filter", "depthwise")
        for found in _frozen(key, use.labels.numpy(), reasons, trace.labels.reasons)
    )
    tensors = trace.tensors
    filters = {name for (name, _), use in recording.uses.items() if use.role == "filter"}
    frozen += tuple(
        Frozen(name, 0, tuple(range(len(tensor))), recording.opaque.get(name, UNSEEN))
        for name, tensor in tensors.items()
        if isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and len(tensor) < tensor.numel()
        if name not in filters and (name in recording.opaque or name not in recording.seen)
    )
    return ChannelGraph(
        channel_of=cut,
        roles={key: roles[key] for key in cut},
        groups=groups,
        frozen=frozen,
        shapes={name: tuple(tensors[name].shape) for name, _ in cut},
        positions=dict(recording.positions),
        min_indices={key: least for key, least in recording.min_indices.items() if key in cut},
        norms={
            name: channels
            for name, labels in recording.norms.items()
            if ((channels := _looked_up(number, labels)) >= 0).any()
        },
        channel_count=count_of(cut),
    )


def _owners(
    recording: Recording, roots: np.ndarray, reasons: np.ndarray
) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
    """Return the number of each label's class, and by tensor those of its indices."""
    number = _renumbered(roots, reasons)
    channel_of = {key: _looked_up(number, use.labels) for key, use in recording.uses.items()}
    return number, {key: channels for key, channels in channel_of.items() if (channels >= 0).any()}


def _stuck(
    trace: Trace, channel_of: Mapping[Key, np.ndarray], groups: tuple[Group, ...]
) -> list[Group]:
    """Return the groups of which nothing can go, since one class of each must stay."""
    return [
        group
        for group in groups
        if not removable_of(channel_of, trace.recording.min_indices, group)
    ]


def _freeze_stuck(
    trace: Trace, number: np.ndarray, groups: list[Group], reasons: np.ndarray
) -> np.ndarray:
    """Freeze groups of which nothing can go."""
    reasons = reasons.copy()
    for group in groups:
        member = np.isin(number, group.channels)
        tie = trace.labels.tied_by(member)
        why = "goes only together with all the others" if tie else "is the only one"
        if len(group.channels) > 1:
            why = "is one of two in a group of a grouped convolution, which keeps both"
        trace.labels.reasons.append(replace(tie, why=why) if tie else Reason(why))
        reasons[member] = len(trace.labels.reasons) - 1
    return reasons


def _looked_up(values: np.ndarray, labels: Tensor) -> np.ndarray:
    index = labels.numpy()
    if not len(values):
        return np.full(len(index), FIXED)
    found: np.ndarray = np.where(index >= 0, values[index], FIXED)
    return found


def _freeze_dead_ends(
    recording: Recording, roots: np.ndarray, reasons: np.ndarray, texts: list[Reason]
) -> np.ndarray:
    """Freeze the channels that no layer makes, or none reads."""
    made, read = np.zeros(len(roots), bool), np.zeros(len(roots), bool)
    for use in recording.uses.values():
        labels = use.labels.numpy()
        found = roots[labels[labels >= 0]]
        if use.role == "filter":
            made[found] = True
        elif use.role == "input":
            read[found] = True
    texts += [UNMADE, UNUSED]
    free = reasons < 0
    reasons = np.where(free & ~made[roots], len(texts) - 2, reasons)
    return np.where(free & made[roots] & ~read[roots], len(texts) - 1, reasons)


def _renumbered(roots: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Return, by label, the number of its class among those that can go, FIXED for the others."""
    free = reasons < 0
    number = np.full(len(roots), FIXED)
    number[free] = np.unique(roots[free], return_inverse=True)[1]
    return number


def _frozen(key: Key, labels: np.ndarray, reasons: np.ndarray, texts: list[Reason]) -> list[Frozen]:
    why = np.where(labels >= 0, reasons[labels], -1)
    return [
        Frozen(*key, tuple(np.flatnonzero(why == reason).tolist()), texts[reason])
        for reason in np.unique(why[why >= 0])
    ]
