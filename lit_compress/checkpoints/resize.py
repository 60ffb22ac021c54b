"""Giving a module the shapes of the checkpoint that a run is about to load."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lit_compress.errors import CheckpointError
from lit_compress.pruning.blocks.surgery import put_back, take_blocks_of
from lit_compress.pruning.channels.resize import Shapes, resize_to
from lit_compress.pruning.channels.surgery import in_layout_of, swap_data
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.unpruned import (
    UnprunedShapes,
    carried,
    carry,
    drop_carried,
    unpruned_shapes_of,
)
from lit_compress.pruning.channels.widths import set_widths

#: Lightning's hook of a module, called with the checkpoint just before the weights are loaded.
_HOOK = "on_load_checkpoint"


class CheckpointResizer:
    """Gives a module the shapes of a checkpoint just before its weights are loaded.

    Lightning restores callbacks after the weights (``checkpoint_connector.py``), so the record of
    the shapes is checked afterwards. Until :meth:`accept`, the old weights can be put back.
    """

    def __init__(self) -> None:
        self._handle: RemovableHandle | None = None
        self._before: Shapes = {}
        self._held: dict[str, Tensor] = {}
        self._parts: list[tuple[str, nn.Module]] = []
        self._widths: list[tuple[nn.Module, str, int]] = []
        self._open = False
        self._module: LightningModule | None = None
        self._hook: Any = None
        self._carried: UnprunedShapes | None = None
        self.record: UnprunedShapes | None = None

    def attach(self, module: LightningModule) -> None:
        """Resize this module whenever it loads weights."""
        self.detach()
        self._open, self.record = True, None
        self._carried = carried(module)
        self._module, self._hook = module, vars(module).get(_HOOK)
        # Callbacks are not told of a checkpoint of weights alone, so the module's hook is used.
        vars(module)[_HOOK] = partial(_note_record, self, module, self._hook)
        self._handle = module.register_load_state_dict_pre_hook(self._resize)  # type: ignore[no-untyped-call]

    def detach(self) -> None:
        """Stop resizing the module."""
        self.accept()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._module is not None:
            vars(self._module).pop(_HOOK, None)
            if self._hook is not None:
                vars(self._module)[_HOOK] = self._hook
            self._module, self._hook = None, None

    def accept(self) -> None:
        """Drop the old weights: the loaded ones are right."""
        self._before, self._held, self._parts = {}, {}, []
        self._widths, self._open = [], False
        self.record = None  # later validations are of a module that may have been pruned further

    def undo(self, module: nn.Module) -> None:
        """Put the old weights back into the module, unless the loaded ones were accepted."""
        put_back(module, self._parts)
        own, held = named_tensors(module), self._held
        changed = {name for name in held if own[name].shape != held[name].shape}
        for name, value in held.items():
            value = in_layout_of(own[name], value.to(own[name].device))
            if name in changed:
                swap_data(own[name], value)
            else:
                own[name].data.copy_(value)
        set_widths(module, {id(own[name]) for name in changed})
        for layer, attribute, number in self._widths:
            setattr(layer, attribute, number)
        if self._open:
            drop_carried(module)
            if self._carried is not None:
                carry(module, self._carried)
        self.accept()

    def _resize(self, module: nn.Module, state: Mapping[str, Any], *_: Any) -> None:
        own = named_tensors(module) if self._open else {}
        held = {name: tensor.detach().to("cpu", copy=True) for name, tensor in own.items()}
        parts = take_blocks_of(module, state, self.record.blocks if self.record else None)
        try:
            _check_names(module, state)
            self._before = resize_to(module, state)
        except CheckpointError:
            put_back(module, parts)
            raise
        self._held, self._parts = held, [*self._parts, *parts] if self._open else []

    def check_record(
        self,
        module: LightningModule,
        checkpoint: Mapping[str, Any],
        known: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Check that the tensors that were resized are those that pruning had resized.

        Args:
            module: The module, with the loaded weights.
            checkpoint: The whole content of the checkpoint.
            known: Unpruned shapes of a module that this run pruned itself.

        Raises:
            CheckpointError: If another tensor was resized.
        """
        self._check(module, unpruned_shapes_of(checkpoint), known)

    def _check(
        self,
        module: LightningModule,
        original: UnprunedShapes | None,
        known: Mapping[str, tuple[int, ...]],
    ) -> None:
        mine = carried(module)
        known = {**known, **(mine.shapes if mine is not None else {})}
        for name, shape in self._before.items():
            whole = original.shapes.get(name) if original is not None else None
            if whole is None or (shape != whole and known.get(name) != whole):
                now = tuple(named_tensors(module)[name].shape)
                raise CheckpointError(
                    f"{name} is {now} in the checkpoint and {shape} here, and "
                    + (
                        "the checkpoint was not made with FilterPruning"
                        if original is None
                        else f"was {whole or 'of fixed size'} in the network that was pruned"
                    )
                    + ": build the module with the arguments it was trained with"
                )
        if original is not None:
            self._widths = set_widths(module, set(), original.widths)
            carry(module, original)
        self._before = {}

    def check_without_record(
        self, module: LightningModule, known: Mapping[str, tuple[int, ...]]
    ) -> None:
        """Check the tensors that were resized for a checkpoint of weights alone.

        Older ones have no record of what was pruned; only a run that pruned the module itself knows
        its unpruned shapes then.

        Args:
            module: The module, with the loaded weights.
            known: Unpruned shapes of a module that this run pruned itself.

        Raises:
            CheckpointError: If the shapes cannot come from pruning in this run.
        """
        if self.record is not None:
            self._check(module, self.record, known)
            self.record = None
        own = named_tensors(module)
        for name, shape in self._before.items():
            now, whole = tuple(own[name].shape), known.get(name, ())
            if len(whole) != len(now) or any(a > b for a, b in zip(now, whole, strict=True)):
                raise CheckpointError(
                    f"{name} is {now} in the checkpoint and {shape} here, and the checkpoint has "
                    "weights alone, without a record of what was pruned, as older versions saved "
                    "it: take a whole checkpoint of that run"
                )
        self._before = {}


def _note_record(
    resizer: CheckpointResizer, module: LightningModule, hook: Any, checkpoint: dict[str, Any]
) -> None:
    """Take the place of a module's ``on_load_checkpoint``."""
    resizer.record = unpruned_shapes_of(checkpoint)
    if hook is not None:
        hook(checkpoint)
    else:
        getattr(type(module), _HOOK)(module, checkpoint)


def _check_names(module: nn.Module, state: Mapping[str, Any]) -> None:
    parts = (part for part in module.modules() if part is not module)
    renamed = any(part._load_state_dict_pre_hooks for part in parts)
    if renamed or not getattr(module, "strict_loading", True):
        return  # torch looks at the names, after hooks of the parts have changed them
    own = set(module.state_dict())
    for names, what in (
        (sorted(own - set(state)), "holds no weights of"),
        (sorted(set(state) - own), "holds weights of a part that is not here:"),
    ):
        if names:
            raise CheckpointError(
                f"the checkpoint {what} {names[0]} ({len(names)} such): it is of another "
                f"architecture than {type(module).__name__}"
            )
