"""The unpruned network: stored in checkpoints, and carried along by a pruned module.

A pruned module keeps the record as a plain attribute, so that a later fit knows it without a
pruning callback: copies and pickles of the module have it, and its ``state_dict`` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from lit_compress.errors import PlanError
from lit_compress.pruning.blocks.surgery import outermost, removed_kinds
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.widths import named_width

#: Key of :class:`UnprunedShapes` in the metadata of a safetensors file.
ORIGINAL = "lit_compress.original"
#: Key of what a pruned module adds to each checkpoint.
RECORD = "lit_compress"
#: Attribute of a pruned module.
_CARRIED = "_lit_compress_unpruned"
#: Lightning's hook of a module that is about to be saved, with its weights alone or with all.
_HOOK = "on_save_checkpoint"


@dataclass(frozen=True)
class UnprunedShapes:
    """Shapes of a network before it was pruned, stored together with its weights.

    Attributes:
        shapes: By tensor name, the unpruned shapes of the tensors that pruning can cut.
        widths: By name, the widths after pruning that no tensor tells: of a norm layer without
            parameters and buffers, or of a whole number among the attributes of a module.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: ChannelGraph, selected: frozenset[int]) -> UnprunedShapes:
        """Return the unpruned shapes of a network.

        Args:
            graph: Channels of the unpruned network.
            selected: Numbers of the channels that were removed.
        """
        widths = {
            name: sum(number not in selected for number in channels.tolist())
            for name, channels in graph.widths.items()
        }
        return cls(dict(graph.shapes), widths)

    def before(self, later: UnprunedShapes) -> UnprunedShapes:
        """Return the shapes before this and a later pruning, and the widths after both.

        The later one may be of another part of the module: it knows the first part as it was.
        """
        widths = dict(later.widths)
        for name, width in self.widths.items():
            widths[name] = min(width, widths.get(name, width))
        blocks = outermost({**self.blocks, **later.blocks})
        return UnprunedShapes({**later.shapes, **self.shapes}, widths, blocks)

    def to_dict(self) -> dict[str, Any]:
        """Return the shapes as lists, numbers and text."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        blocks = {"blocks": dict(self.blocks)} if self.blocks else {}
        return {"shapes": shapes, "norms": dict(self.widths), **blocks}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> UnprunedShapes:
        """Return the shapes that :meth:`to_dict` stored.

        Raises:
            PlanError: If the content is damaged.
        """
        try:
            return cls(
                {str(n): tuple(map(_size, shape)) for n, shape in content["shapes"].items()},
                {str(n): _size(width) for n, width in content["norms"].items()},
                {str(n): str(kind) for n, kind in content.get("blocks", {}).items()},
            )
        except Exception as error:  # of whatever kind: the content may be anything
            raise PlanError(
                "the unpruned shapes in the checkpoint are damaged "
                f"({type(error).__name__}: {error}): load another checkpoint"
            ) from error


def unpruned_shapes_of(checkpoint: Mapping[str, Any]) -> UnprunedShapes | None:
    """Return the unpruned shapes in a checkpoint, of the module or of pruning callbacks, or None.

    Raises:
        PlanError: If they are damaged.
    """
    states = checkpoint.get("callbacks")
    records = [checkpoint.get(RECORD), *(states.values() if isinstance(states, dict) else ())]
    found = [
        UnprunedShapes.from_dict(record["original"])
        for record in records
        if isinstance(record, dict) and record.get("original") is not None
    ]
    whole = found[0] if found else None
    for other in found[1:]:  # each callback knows the part that it prunes
        whole = whole.before(other) if whole is not None else other
    return whole


def carry(module: nn.Module, shapes: UnprunedShapes) -> None:
    """Let a pruned module carry its unpruned shapes along, and add them to each checkpoint.

    Args:
        module: The module; any earlier record is replaced.
        shapes: The shapes.
    """
    vars(module)[_CARRIED] = shapes
    hook = vars(module).get(_HOOK)
    if hasattr(module, _HOOK) and not (isinstance(hook, partial) and hook.func is _save_with):
        vars(module)[_HOOK] = partial(_save_with, module, hook)


def carried(module: nn.Module) -> UnprunedShapes | None:
    """Return the unpruned shapes that a module carries along; None if it was never pruned."""
    found = vars(module).get(_CARRIED)
    if not isinstance(found, UnprunedShapes):
        return None
    tensors = named_tensors(module)
    widths = {name: named_width(module, name) for name in found.widths}
    gone = removed_kinds(module)
    return UnprunedShapes(
        {
            name: shape
            for name, shape in found.shapes.items()
            if name in tensors and _may_come_from(tuple(tensors[name].shape), shape)
        },
        {name: width for name, width in widths.items() if width is not None},
        {name: kind for name, kind in found.blocks.items() if gone.get(name) == kind},
    )


def drop_carried(module: nn.Module) -> None:
    """Let a module carry nothing along: it has the weights of a network that was not pruned."""
    vars(module).pop(_CARRIED, None)


def is_smaller(module: nn.Module, unpruned: UnprunedShapes | None = None) -> bool:
    """Tell whether a module lacks channels or blocks of the network that it was pruned from.

    Args:
        module: The module.
        unpruned: The shapes of that network. Default: those that the module carries along.
    """
    record, tensors = unpruned or carried(module), named_tensors(module)
    if record is None:
        return False
    gone = removed_kinds(module)
    return any(name in gone for name in record.blocks) or any(
        name in tensors and tuple(tensors[name].shape) != shape
        for name, shape in record.shapes.items()
    )


def _save_with(module: nn.Module, hook: Any, checkpoint: dict[str, Any]) -> None:
    """Take the place of a module's ``on_save_checkpoint``; a partial can be copied and pickled."""
    if hook is not None:
        hook(checkpoint)
    else:
        getattr(type(module), _HOOK)(module, checkpoint)
    if (record := carried(module)) is not None:
        checkpoint[RECORD] = {"original": record.to_dict()}


def _may_come_from(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Tell whether removed channels explain a shape; a layer may have been replaced since."""
    return len(shape) == len(whole) and all(a <= b for a, b in zip(shape, whole, strict=True))


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is not a size")
    return value
