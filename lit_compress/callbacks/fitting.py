"""Fitting a module to the weights that a run is about to load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.hooks import RemovableHandle

from lit_compress.errors import CheckpointError
from lit_compress.pruning.shapes import Shapes, fit_shapes, original_of
from lit_compress.pruning.surgery import set_widths
from lit_compress.pruning.trace import named_tensors


class Fitting:
    """Gives a module the shapes of a checkpoint just before its weights are loaded.

    Lightning restores callbacks after the weights, so what the checkpoint says of its shapes is
    looked at afterwards.
    """

    def __init__(self) -> None:
        self._handle: RemovableHandle | None = None
        self._before: Shapes = {}

    def attach(self, module: LightningModule) -> None:
        """Fit this module whenever it loads weights."""
        self.detach()
        self._handle = module.register_load_state_dict_pre_hook(self._fit)  # type: ignore[no-untyped-call]

    def detach(self) -> None:
        """Let the module go."""
        self._before = {}
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _fit(self, module: nn.Module, state: Mapping[str, Any], *_: Any) -> None:
        missing = sorted(set(module.state_dict()) - set(state))
        if missing and getattr(module, "strict_loading", True):
            raise CheckpointError(
                f"the checkpoint holds no weights of {missing[0]} ({len(missing)} such): it is of "
                f"another architecture than {type(module).__name__}"
            )
        self._before = fit_shapes(module, state)

    def confirm(
        self,
        module: LightningModule,
        checkpoint: Mapping[str, Any],
        known: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Make sure that what was fitted is what pruning had cut.

        Args:
            module: The module, its weights loaded.
            checkpoint: All of the checkpoint.
            known: Shapes before pruning of a module that this run pruned itself.

        Raises:
            CheckpointError: If it is not.
        """
        original = original_of(checkpoint)
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
            set_widths(module, set(), original.norms)
        self._before = {}
