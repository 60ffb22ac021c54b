"""The record of removed blocks: in checkpoints, along with the module, and to go back."""

from __future__ import annotations

from abc import ABC
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lit_compress.callbacks._pruning.base import PruningCallback, pruning_callbacks
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.callbacks._pruning.optimizers import optimizers_of
from lit_compress.checkpoints.resize import CheckpointResizer
from lit_compress.errors import InvalidArgumentError, PlanError
from lit_compress.pruning.blocks.block import BlockGraph
from lit_compress.pruning.blocks.surgery import removed_kinds
from lit_compress.pruning.channels.unpruned import UnprunedShapes, carried, carry


class BlockRecord(PruningCallback, ABC):
    """A pruning callback whose checkpoints say which blocks were removed.

    The arguments are those of the base class.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._graph: BlockGraph | None = None
        self._removed: list[str] = []
        self._kinds: dict[str, str] = {}
        self._earlier = UnprunedShapes()
        self._resizer = CheckpointResizer()
        #: Of each optimizer, the parameters of its groups before the first removal.
        self._groups: list[tuple[Optimizer, list[list[Tensor]]]] = []

    def begin_with(self, pl_module: LightningModule, graph: BlockGraph) -> None:
        """Begin with a network of which this callback has removed nothing.

        Args:
            pl_module: The user's module.
            graph: The blocks that may be removed.
        """
        self._graph, self._removed = graph, []
        self._earlier = carried(pl_module) or UnprunedShapes()
        self._kinds = dict(self._earlier.blocks)

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the blocks that were removed, in the order of their removal."""
        return tuple(self._removed)

    @override
    def start_anew(self) -> None:
        super().start_anew()
        self._graph, self._removed, self._kinds = None, [], {}
        self._earlier, self._groups = UnprunedShapes(), []

    @override
    def matches(self, pl_module: LightningModule) -> bool:
        return self._graph is None or removed_kinds(pl_module) == self._kinds

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._resizer.detach()
        others = [one for one in pruning_callbacks(trainer) if isinstance(one, ChannelPruning)]
        if not others:  # one of several gives the module its shapes
            self._resizer.attach(pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._resizer.accept()
        if self._graph is not None:
            self._carry(pl_module)  # the weights may be those of a checkpoint
        self._groups = [
            (optimizer, [list(group["params"]) for group in optimizer.param_groups])
            for optimizer in optimizers_of(trainer, pl_module)
        ]

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._resizer.undo(pl_module)
        self._resizer.detach()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self._resizer.detach()
        self._groups = []

    @override
    def after_step_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the optimizers the parameters of blocks that came back."""
        own = {id(parameter) for parameter in pl_module.parameters()}
        for optimizer, groups in self._groups:
            optimizer.state.clear()
            for group, parameters in zip(optimizer.param_groups, groups, strict=False):
                group["params"] = [p for p in parameters if id(p) in own]
        self._carry(pl_module)

    # --- checkpoints -----------------------------------------------------------------------------

    def _carry(self, pl_module: LightningModule) -> None:
        """Let the module carry the record along, for later fits and weights-only checkpoints."""
        self._kinds = removed_kinds(pl_module)
        own, known = self.unpruned_shapes(), carried(pl_module)
        if own is not None:
            carry(pl_module, own if known is None else known.before(own))

    @override
    def unpruned_shapes(self) -> UnprunedShapes | None:
        if self._graph is None:
            return None
        return self._earlier.before(UnprunedShapes(blocks=self._kinds))

    @override
    def own_state(self) -> dict[str, Any]:
        common, original = super().own_state(), self.unpruned_shapes()
        if self._graph is None or original is None:
            return common
        blocks = {**self._graph.to_dict(), "removed": list(self._removed)}
        return {**common, "blocks": blocks, "original": original.to_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        try:
            super().load_state_dict(state_dict)
            blocks, original = state_dict.get("blocks"), state_dict.get("original")
            if blocks is None or original is None:
                return
            graph, removed = BlockGraph.from_dict(blocks), [str(n) for n in blocks["removed"]]
            if not set(removed) <= graph.blocks.keys():
                raise ValueError("blocks were removed that the network does not have")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(
                f"the checkpoint's state of {type(self).__name__} is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        self._graph, self._removed = graph, removed
        self._earlier = UnprunedShapes.from_dict(original)
        self._kinds = dict(self._earlier.blocks)

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resizer.check_record(pl_module, checkpoint, {})
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resizer.check_without_record(pl_module, {})

    on_test_start = on_predict_start = on_validation_start

    @override
    def progress(self) -> dict[str, Any]:
        return {**super().progress(), "removed": list(self._removed)}

    def _require_graph(self) -> BlockGraph:
        if self._graph is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} has not looked for blocks yet: start a fit"
            )
        return self._graph
