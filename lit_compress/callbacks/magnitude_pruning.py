"""Element-wise pruning by magnitude, while training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override

from lit_compress.callbacks._pruning.arguments import check_patterns, plain
from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.callbacks._pruning.weight_masks import WeightMasks
from lit_compress.errors import CheckpointError, InvalidArgumentError
from lit_compress.pruning import magnitude_masks, pack, prunable_weights, sparsity, unpack
from lit_compress.pruning.masks import Masks, Scope
from lit_compress.pruning.schedule import Schedule

DEFAULT_SCHEDULE = Schedule()
MISSING_HINT = "give the arguments the checkpoint was made with, or start a new fit from init_from"


class MagnitudePruning(PruningCallback):
    """Sets the weights of smallest magnitude to zero, and holds them there.

    Works on any LightningModule. Masks live in the callback and its part of the checkpoint, never
    in the module: a checkpoint loads without this callback too. The network keeps its shape and
    its speed; what shrinks is the number of non-zeros.

    Args:
        target: Share of the prunable weights that is zero in the end, in [0, 1): 0.8 zeroes 80 %
            of them. Reached by the last event of the schedule, never compounding.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
        scope: ``global`` ranks all weights together, ``local`` prunes the same share of each layer.
        include: Globs of the layers to prune, such as ``model.features.*``, or ``regex:`` and a
            regular expression. Default: every conv and linear layer; biases and norms are never
            pruned.
        exclude: Patterns of the layers to leave alone.
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``; it is logged again as
            ``pruned/val_acc`` once the target is reached, NaN before: what ModelCheckpoint should
            watch to keep the best pruned weights.
        rewind: ``init`` sets the weights that stay back to those the fit began with, after each
            event, and ``epoch k`` to those at the start of that epoch (lottery tickets); the
            optimizer starts anew, the learning rate goes on.
    """

    def __init__(
        self,
        target: float,
        schedule: Schedule = DEFAULT_SCHEDULE,
        scope: Scope = "global",
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        monitor: str | None = None,
        rewind: str | None = None,
    ) -> None:
        super().__init__(target, schedule, monitor, rewind)
        if scope not in ("global", "local"):
            raise InvalidArgumentError(f"scope must be 'global' or 'local', got {scope!r}")
        check_patterns(include=include, exclude=exclude)
        self.scope = scope
        self.include = list(include)
        self.exclude = list(exclude)
        self._masks: Masks = {}
        self._packed: dict[str, Tensor] = {}
        self._weights: dict[str, nn.Parameter] = {}
        self._weight_masks = WeightMasks()

    @override
    def arguments(self) -> dict[str, Any]:
        return {
            "target": float(self._target),
            "schedule": plain(self.schedule),
            "scope": self.scope,
            "include": self.include,
            "exclude": self.exclude,
            **({"rewind": self._rewind.spec} if self._rewind.spec else {}),
        }

    @property
    def masks(self) -> Masks:
        """Boolean masks by weight name, True where the weight is kept."""
        return dict(self._masks)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._masks, self._packed = {}, {}
            self._weight_masks.clear()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weights = prunable_weights(pl_module, self.include, self.exclude)
        self._refuse_shared_claims(trainer)
        if self._packed:
            self._masks = self._restored()
            self._weight_masks.hold(self._weights, self._masks)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weight_masks.attach(trainer.optimizers)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # In manual optimization a step may be that of an optimizer the trainer does not know.
        if not pl_module.automatic_optimization:
            self._weight_masks.apply()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weight_masks.apply()
        self._weight_masks.release()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._weight_masks.release()

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._weight_masks.release()

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        self._masks = magnitude_masks(self._weights, share, self.scope, self._masks)
        self._weight_masks.hold(self._weights, self._masks)
        return sparsity(self._masks)

    @override
    def after_pruning_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weight_masks.apply()

    @override
    def state_dict(self) -> dict[str, Any]:
        masks = {name: pack(mask) for name, mask in self._masks.items()}
        return {**super().state_dict(), "masks": masks or dict(self._packed)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._packed = dict(state_dict["masks"])

    def _restored(self) -> Masks:
        different = set(self._packed) ^ set(self._weights)
        if different:
            raise CheckpointError(
                f"the checkpoint's masks and this run's prunable weights differ in "
                f"{len(different)} names, such as {min(different)}: {MISSING_HINT}"
            )
        try:
            return {
                name: unpack(self._packed[name], weight.shape)
                for name, weight in self._weights.items()
            }
        except InvalidArgumentError as error:
            raise CheckpointError(f"{error}; {MISSING_HINT}") from error

    def _refuse_shared_claims(self, trainer: Trainer) -> None:
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, MagnitudePruning) and other is not self:
                mine = {id(weight): name for name, weight in self._weights.items()}
                both = [mine[id(w)] for w in other._weights.values() if id(w) in mine]
                if both:
                    raise InvalidArgumentError(
                        f"two MagnitudePruning callbacks claim {both[0]} ({len(both)} weights in "
                        "all): give them include and exclude patterns that do not overlap"
                    )
