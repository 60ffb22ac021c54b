"""Stop the trials that will not reach the front."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._pruning.channels import ChannelPruning, sizes_left
from lit_compress.callbacks.compress import Compress
from lit_compress.evaluation.trainer_access import callbacks
from lit_compress.search.objectives import Objective

#: Keys of what a trial notes: its metric after each epoch, and the size of its network.
EPOCHS, SIZE = "epochs", "size"
#: What is known of a network while it trains, by the objective that it stands for.
KNOWN = {"parameters": "parameters", "bytes": "parameters", "macs": "macs"}
#: How many trials that cost no more must have been better.
ENOUGH = 3


def rule(objectives: Sequence[Objective], trainer: Trainer, same: Sequence[str] = ()) -> str:
    """Return in words which trials are stopped early.

    Args:
        objectives: The objectives of the search.
        trainer: The Trainer of the fit that is varied; it has not run.
        same: Settings that trials must have in common to be compared.
    """
    metrics = [one.name for one in objectives if not one.is_cost]
    unknown = [one.name for one in objectives if one.is_cost and one.name not in KNOWN]
    if not metrics or unknown:
        what = unknown[0] if unknown else objectives[0].name
        return f"no trial is stopped early, as {what} is not known before the end of a fit"
    if "macs" in [one.name for one in objectives] and not _counts_macs(trainer):
        return "no trial is stopped early, as no callback removes channels and counts MACs"
    if len(objectives) == 1:
        worse = "below" if objectives[0].maximize else "above"
        return (
            f"a trial is stopped if its best {metrics[0]} is {worse} the median of the others "
            "after the same epoch"
        )
    costs = " and ".join(dict.fromkeys(KNOWN[one.name] for one in objectives if one.is_cost))
    alike = f", and the same {', '.join(same)}," if same else ""
    return (
        f"a trial is stopped once {ENOUGH} finished trials with no more {costs}{alike} had a "
        f"better {metrics[0]} after the same epoch"
    )


def _counts_macs(trainer: Trainer) -> bool:
    return any(isinstance(one, (ChannelPruning, Compress)) for one in callbacks(trainer))


class StopHopeless(Callback):
    """Stops the fit of a trial that others of its study have overtaken.

    With one objective, a metric, Optuna's pruner of the study decides after each epoch. Optuna has
    none for several objectives. There a trial is stopped once three finished trials, whose networks
    are no larger than this one, had a better metric after the same epoch than this one had at any
    time. Nothing is compared before the last pruning step, when the network is still larger than it
    will be, nor where ``max_drop`` can bring pruned channels back.

    Args:
        trial: The ``optuna.Trial``.
        objectives: The objectives of the search.
        same: Settings that another trial must have in common with this one. Such as the layers that
            stay float: with others, the file is not larger where the network is.
    """

    def __init__(
        self, trial: Any, objectives: Sequence[Objective], same: Sequence[str] = ()
    ) -> None:
        self.trial = trial
        self.same = same
        self.metric = next((one for one in objectives if not one.is_cost), None)
        self.costs = [one.name for one in objectives if one.is_cost]
        self.epochs: dict[str, float] = {}
        self._validated = False

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = False

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the trial with others.

        Raises:
            optuna.TrialPruned: If it is without hope.
        """
        if self.metric is None or not self._validated or not set(self.costs) <= KNOWN.keys():
            return
        value = trainer.callback_metrics.get(self.metric.name)
        if value is None or not _is_pruned(trainer):
            return  # a missing metric is an error of the callback that watches it
        if self._is_hopeless(float(value), trainer, pl_module):
            from optuna import TrialPruned

            raise TrialPruned(f"{self.metric.name} {float(value):.4g}")

    def _is_hopeless(self, value: float, trainer: Trainer, pl_module: LightningModule) -> bool:
        if isnan(value):
            return True
        if not self.costs:
            self.trial.report(value, trainer.current_epoch)
            return bool(self.trial.should_prune())
        left = sizes_left(trainer, pl_module)
        left.setdefault("parameters", sum(one.numel() for one in pl_module.parameters()))
        size = [left.get(KNOWN[cost]) for cost in self.costs]
        if None in size:
            return False  # no callback counts MACs
        self.epochs[str(trainer.current_epoch)] = value
        self.trial.set_user_attr(EPOCHS, self.epochs)
        self.trial.set_user_attr(SIZE, size)
        return len(self._better(trainer.current_epoch, size)) >= ENOUGH

    def _better(self, epoch: int, size: Sequence[Any]) -> list[int]:
        """Return the finished trials that cost no more and were better after an epoch."""
        from optuna.trial import TrialState

        sign = 1 if self.metric is not None and self.metric.maximize else -1
        best = max(sign * value for value in self.epochs.values())
        found = []
        others = self.trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for other in others:
            known, epochs = other.user_attrs.get(SIZE), other.user_attrs.get(EPOCHS, {})
            no_more = known is not None and all(a <= b for a, b in zip(known, size, strict=True))
            alike = all(other.params[key] == self.trial.params[key] for key in self.same)
            was_there = str(epoch) in epochs  # of another length, or with a later pruning step
            if no_more and alike and was_there and sign * epochs[str(epoch)] > best:
                found.append(int(other.number))
        return found


def _is_pruned(trainer: Trainer) -> bool:
    """Tell whether the network is as small as it will be."""
    pruners = pruning_callbacks(trainer)
    return all(one.last_epoch <= trainer.current_epoch and not one.contract for one in pruners)
