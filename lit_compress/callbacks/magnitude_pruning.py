"""Magnitude pruning: single weights are set to zero while the network trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from lit_compress.callbacks._budget.contract import Contract, Mode
from lit_compress.callbacks._pruning.arguments import check_patterns, one_of, plain
from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.callbacks._pruning.untrained import check_trained_in_time, never_trained
from lit_compress.callbacks._pruning.weight_masks import mask_cost
from lit_compress.callbacks._run.resuming import named
from lit_compress.errors import CheckpointError, InvalidArgumentError, PatternError
from lit_compress.evaluation.trainer_access import callbacks_of_type
from lit_compress.pruning import magnitude_masks, pack, prunable_weights, sparsity, unpack
from lit_compress.pruning.masks import Masks, Scope, exact_share
from lit_compress.pruning.schedule import Schedule

DEFAULT_SCHEDULE = Schedule()
MISSING_HINT = "give the arguments the checkpoint was made with, or start a new fit from init_from"


class MagnitudePruning(PruningCallback):
    """Sets the weights of smallest magnitude to zero, and keeps them there.

    Works on any LightningModule. The masks are in the callback and in its part of the checkpoint,
    never in the module: a checkpoint loads without this callback too. The network keeps its shape
    and its speed; the number of non-zero weights decreases.

    Args:
        target: Share of the prunable weights that is zero at the end of the schedule, in [0, 1):
            0.8 zeroes 80 % of them. It is a share of the unpruned network, and never compounds.
            Weights that are not trained are not prunable; those that a finetuning callback trains
            later are, once they are trained.
        schedule: Epochs at which to prune. Default: each of the first two thirds of the run, cubic.
        scope: ``global`` ranks all weights together, ``local`` prunes the same share of each layer.
        include: Globs of the layers to prune, such as ``model.features.*``, or ``regex:`` and a
            regular expression. Default: every conv and linear layer; biases and norms are never
            pruned.
        exclude: Patterns of the layers that are not pruned.
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``. It is logged again as
            ``pruned/val_acc``: NaN until the target is reached, then the metric. Let
            ModelCheckpoint watch it to keep the best pruned weights.
        rewind: ``init`` sets the kept weights back to those at the start of the fit, after each
            pruning step; ``epoch k`` to those at the start of that epoch (lottery tickets). The
            optimizer restarts, the learning rate continues.
        max_drop: How much of ``monitor`` pruning may cost, such as 0.01, of the dense network that
            CompressionReport's ``baseline`` names, or else of this network just before its first
            pruning step. A step waits until the metric is within it again; if the last network
            breaks it, the run goes back to the last one that kept it.
        mode: Whether more of ``monitor`` is better (``max``) or less (``min``); ``auto`` tells it
            by the name or by the torchmetrics object that is logged, and otherwise asks.

    Example:
        >>> from lit_compress import Schedule
        >>> from lit_compress.callbacks import MagnitudePruning
        >>> callback = MagnitudePruning(0.8, Schedule(first=2, last=8), exclude=["model.fc"])
        >>> callback.goal
        0.8
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
        max_drop: float | None = None,
        mode: Mode = "auto",
    ) -> None:
        contract = Contract(monitor, max_drop, mode)
        super().__init__(exact_share(target), schedule, monitor, rewind, contract)
        one_of("scope", scope, get_args(Scope))
        check_patterns(include=include, exclude=exclude)
        self.target = target
        self.scope = scope
        self.include = list(include)
        self.exclude = list(exclude)
        self._masks: Masks = {}
        self._packed: dict[str, Tensor] = {}
        self._weights: dict[str, nn.Parameter] = {}

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
    def start_anew(self) -> None:
        super().start_anew()
        self._masks, self._packed = {}, {}

    @override
    def matches(self, pl_module: LightningModule) -> bool:
        own = dict(pl_module.named_parameters())
        return all(name in own and own[name].shape == m.shape for name, m in self._masks.items())

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._weights = self._prunable(trainer, pl_module)
        self._refuse_shared_weights(trainer)
        if self._packed:
            with named(trainer):
                self._masks, self._packed = self._restored(), {}
        if self._masks:
            self._weight_masks.set(self._weights, self._masks)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._weight_masks.attach(trainer.optimizers)
        start = time.monotonic()
        magnitude_masks(self._weights, self._target, self.scope, self._masks)
        rank_zero_info(
            f"MagnitudePruning: a pruning step takes about {time.monotonic() - start:.1f} s; "
            f"steps: {len(self._resolved_schedule.events())}; "
            f"{mask_cost(trainer, self._weights.values())}"
        )

    @override
    def prune(self, trainer: Trainer, pl_module: LightningModule, share: Fraction) -> float:
        found = magnitude_masks(self._weights, share, self.scope, self._masks)
        self._waiting = [n for n, weight in self._weights.items() if not weight.requires_grad]
        for name in self._waiting:  # a weight that is not trained yet stays as it is
            whole = torch.ones_like(found[name])
            found[name] = self._masks.get(name, whole)
        self._masks = found
        self._weight_masks.set(self._weights, self._masks)
        return sparsity(self._masks)

    @override
    def own_state(self) -> dict[str, Any]:
        masks = {name: pack(mask) for name, mask in self._masks.items()}
        return {**super().own_state(), "masks": masks or dict(self._packed)}

    @override
    def after_step_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._masks = self._restored() if self._packed else {}
        self._packed = {}
        self._weight_masks.set(self._weights, self._masks)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._packed = dict(state_dict["masks"])

    def _prunable(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, nn.Parameter]:
        """Return the weights that are trained in this run, and those that were pruned before."""
        every = prunable_weights(pl_module, self.include, self.exclude)
        never = never_trained(trainer, pl_module) - {*self._packed, *self._masks}
        left = {name: weight for name, weight in every.items() if name not in never}
        still = [name for name in every if name in never]
        if not left:
            raise PatternError(
                f"MagnitudePruning has nothing to prune: {still[0]} and all other weights of conv "
                "and linear layers are not trained (requires_grad is False)"
            )
        if still:
            rank_zero_info(
                f"MagnitudePruning: {len(still)} weights are not trained (requires_grad is False) "
                f"and stay as they are: {', '.join(still[:4])}" + (" ..." if still[4:] else "")
            )
        check_trained_in_time(self, trainer, pl_module, left)
        return left

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

    def _refuse_shared_weights(self, trainer: Trainer) -> None:
        mine = {id(weight): name for name, weight in self._weights.items()}
        for other in callbacks_of_type(trainer, MagnitudePruning):
            shared = [mine[id(w)] for w in other._weights.values() if id(w) in mine]
            if other is not self and shared:
                raise InvalidArgumentError(
                    f"two MagnitudePruning callbacks prune {shared[0]} ({len(shared)} weights in "
                    "all): give them include and exclude patterns that do not overlap"
                )
