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
    classes, reasons = trace.labels.resolve()
    reasons = _dead_ends(recording, classes, reasons, trace.labels.reasons)
    roles = {key: use.role for key, use in recording.uses.items()}
    number, cut = _owners(recording, classes, reasons)
    groups = grouped(cut, roles)
    if stuck := _stuck(trace, cut, groups):
        reasons = _frozen_too(trace, number, stuck, reasons)
        number, cut = _owners(recording, classes, reasons)
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
        owners=cut,
        roles={key: roles[key] for key in cut},
        groups=groups,
        frozen=frozen,
        shapes={name: tuple(tensors[name].shape) for name, _ in cut},
        work=dict(recording.work),
        floors={key: floor for key, floor in recording.floors.items() if key in cut},
        norms={
            name: owner
            for name, labels in recording.norms.items()
            if ((owner := _looked_up(number, labels)) >= 0).any()
        },
        class_count=count_of(cut),
    )


def _owners(
    recording: Recording, classes: np.ndarray, reasons: np.ndarray
) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
    """Return the number of each label's class, and by tensor those of its indices."""
    number = _renumbered(classes, reasons)
    owners = {key: _looked_up(number, use.labels) for key, use in recording.uses.items()}
    return number, {key: owner for key, owner in owners.items() if (owner >= 0).any()}


def _stuck(
    trace: Trace, owners: Mapping[Key, np.ndarray], groups: tuple[Group, ...]
) -> list[Group]:
    """Return the groups of which nothing can go, since one class of each must stay."""
    return [group for group in groups if not removable_of(owners, trace.recording.floors, group)]


def _frozen_too(
    trace: Trace, number: np.ndarray, groups: list[Group], reasons: np.ndarray
) -> np.ndarray:
    """Freeze groups of which nothing can go."""
    reasons = reasons.copy()
    for group in groups:
        member = np.isin(number, group.classes)
        tie = trace.labels.tied_by(member)
        why = "goes only together with all the others" if tie else "is the only one"
        if len(group.classes) > 1:
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


def _dead_ends(
    recording: Recording, classes: np.ndarray, reasons: np.ndarray, texts: list[Reason]
) -> np.ndarray:
    """Freeze the classes that no layer makes, or none reads."""
    made, read = np.zeros(len(classes), bool), np.zeros(len(classes), bool)
    for use in recording.uses.values():
        labels = use.labels.numpy()
        roots = classes[labels[labels >= 0]]
        if use.role == "filter":
            made[roots] = True
        elif use.role == "input":
            read[roots] = True
    texts += [UNMADE, UNUSED]
    free = reasons < 0
    reasons = np.where(free & ~made[classes], len(texts) - 2, reasons)
    return np.where(free & made[classes] & ~read[classes], len(texts) - 1, reasons)


def _renumbered(classes: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Return, by label, the number of its class among those that can go, FIXED for the others."""
    free = reasons < 0
    number = np.full(len(classes), FIXED)
    number[free] = np.unique(classes[free], return_inverse=True)[1]
    return number


def _frozen(key: Key, labels: np.ndarray, reasons: np.ndarray, texts: list[Reason]) -> list[Frozen]:
    why = np.where(labels >= 0, reasons[labels], -1)
    return [
        Frozen(*key, tuple(np.flatnonzero(why == reason).tolist()), texts[reason])
        for reason in np.unique(why[why >= 0])
    ]
