"""What a callback that removes channels keeps in checkpoints, and how a run goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.checkpoints.resize import CheckpointResizer
from lit_compress.errors import InvalidArgumentError, PlanError
from lit_compress.pruning import Schedule, apply, make_plan
from lit_compress.pruning.channels.resize import UnprunedShapes
from lit_compress.pruning.channels.trace import named_tensors
from lit_compress.pruning.selection.state import PruningState, pruning_state_of


class ChannelRecord(PruningCallback):
    """Keeps the channels of the original network, and gives a module the shapes it is to load.

    Args:
        target: Share to remove in the end, in [0, 1).
        schedule: Epochs at which to prune.
        monitor: Key that ``validation_step`` logs, to be logged again once the target is reached.
        rewind: What the weights that stay are set back to after an event.
    """

    def __init__(
        self, target: float, schedule: Schedule, monitor: str | None, rewind: str | None
    ) -> None:
        super().__init__(target, schedule, monitor, rewind)
        self._resizer = CheckpointResizer()
        self._state: PruningState | None = None
        self._scores: dict[str, Tensor] = {}

    @override
    def original(self) -> UnprunedShapes | None:
        return None if self._state is None else self._state.original()

    @override
    def prune_to_final(self, module: LightningModule) -> None:
        if self._state is not None:
            graph, tensors = self._state.graph, named_tensors(module)
            if all(tuple(tensors[n].shape) == shape for n, shape in graph.shapes.items()):
                apply(make_plan(graph, self._state.selected), module)

    @override
    def state_dict(self) -> dict[str, Any]:
        common = super().state_dict()
        if self._state is None:
            return common
        original = self._state.original().to_dict()
        channels = self._state.to_dict()
        return {**common, "ledger": channels, "scores": dict(self._scores), "original": original}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        try:
            super().load_state_dict(state_dict)
            state, original = state_dict.get("ledger"), state_dict.get("original")
            if (state is None) != (original is None) or not 0 <= self._done <= 1:
                raise ValueError("its parts do not agree")
            scores = dict(state_dict["scores"]) if state is not None else {}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"the checkpoint's state of {type(self).__name__} is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        if state is not None:
            self._state, self._scores = PruningState.from_dict(state), scores

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resizer.confirm(pl_module, checkpoint, self._known())
        if (state := pruning_state_of(checkpoint)) is not None:
            state.check(named_tensors(pl_module))
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resizer.check_without_record(pl_module, self._known())

    on_test_start = on_predict_start = on_validation_start

    def _known(self) -> Mapping[str, tuple[int, ...]]:
        return self._state.graph.shapes if self._state is not None else {}

    def _require_state(self) -> PruningState:
        if self._state is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} has not seen the network yet: start a fit"
            )
        return self._state
