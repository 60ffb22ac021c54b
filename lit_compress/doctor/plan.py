"""The plan of a run: does it reach its targets, and does it watch metrics that there are."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_compress.callbacks._pruning.base import PruningCallback, pruning_callbacks
from lit_compress.doctor.finding import Answer, error, fine, listed, warning
from lit_compress.evaluation.trainer_access import callbacks, callbacks_of_type, is_fast_dev_run
from lit_compress.measure.metric_names import higher_is_better

#: What the metrics begin with that the callbacks of this package log during the training.
OURS = ("compress/", "size/", "sparsity/", "pruned/", "overfitting/", "drop/", "macs/")
#: What Lightning adds to the name of a metric that is logged by the step and by the epoch.
FORKS = ("step", "epoch")
#: Hooks after a training step, in which a module may log what its steps do not.
LATER = ("on_train_epoch_end", "on_train_batch_end", "on_train_epoch_start", "on_train_start")
#: What callbacks of packages begin with whose logged metrics are known.
KNOWN = ("lightning.", "lit_compress.")


def check_length(trainer: Trainer) -> list[Answer]:
    """Check that no limit ends the run before the last pruning step."""
    epochs = _epochs(trainer)
    found: list[Answer] = []
    for pruner in pruning_callbacks(trainer):
        last = pruner.last_epoch
        if is_fast_dev_run(trainer) or epochs is None or last < epochs:
            text = f"{type(pruner).__name__} prunes from epoch {pruner.first_epoch} to {last}"
            found.append(fine(f"{text} of {_number(trainer.max_epochs)}"))
            continue
        found.append(
            error(
                f"{type(pruner).__name__} prunes for the last time at epoch {last}, and max_steps "
                f"({trainer.max_steps}) ends the run in epoch {math.ceil(epochs) - 1}",
                f"raise max_steps, or set schedule.last to {max(0, math.ceil(epochs) - 2)} at most",
            )
        )
    return found or [fine(f"{_number(trainer.max_epochs)} epochs, without pruning")]


def check_early_stopping(trainer: Trainer) -> list[Answer]:
    """Check that EarlyStopping cannot end the run before the last pruning step."""
    found: list[Answer] = []
    for stopping in callbacks_of_type(trainer, EarlyStopping):
        earliest = _earliest_stop(trainer, stopping)
        for pruner in pruning_callbacks(trainer):
            if earliest < pruner.last_epoch:
                found.append(_too_early(trainer, stopping, pruner, earliest))
    stops = len(callbacks_of_type(trainer, EarlyStopping))
    return found or [fine("cannot end the run before its target" if stops else "there is none")]


def check_monitors(
    trainer: Trainer,
    module: LightningModule,
    keys: Collection[str],
    directions: Mapping[str, bool],
) -> list[Answer]:
    """Check that watched metrics are logged, and that the mode of each suits it.

    Args:
        trainer: The run at the start of its training.
        module: Its module.
        keys: The metrics that its steps log.
        directions: By key, whether more is better, as the logged metric object says.
    """
    found: list[Answer] = []
    watched = _watched(trainer)
    for owner, monitor, mode in watched:
        if not _may_be_logged(trainer, module, monitor, keys):
            found.append(
                error(
                    f"{owner} watches {monitor!r}, which is not logged; logged are "
                    f"{listed(sorted(keys)) or 'no metrics'}",
                    f"set monitor of {owner} to one of them, or log {monitor!r}",
                )
            )
            continue
        rises = directions.get(monitor, higher_is_better(monitor.removeprefix("pruned/")))
        if mode is not None and rises is not None and rises != (mode == "max"):
            right = "max" if rises else "min"
            more = "more" if rises else "less"
            found.append(
                warning(
                    f"{owner} takes the {'smallest' if rises else 'largest'} {monitor} as the best "
                    f"(mode: {mode}), and {more} of it is better by its name or its metric object",
                    f"set mode: {right} in {owner}",
                )
            )
    names = sorted({monitor for _, monitor, _ in watched})
    return found or [fine(f"{listed(names)} logged" if names else "none is watched")]


def check_optimizer(trainer: Trainer, module: LightningModule) -> list[Answer]:
    """Check that the optimizers have the weights of the module, all that are to be trained."""
    if not trainer.optimizers:
        remedy = "return one from configure_optimizers"
        return [warning("there is no optimizer, so nothing is trained", remedy)]
    groups = [group for one in trainer.optimizers for group in one.param_groups]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    strange = len(held - names.keys())
    if strange:
        return [
            error(
                f"{strange} of {len(held)} tensors in the optimizers are not weights of "
                f"{type(module).__name__}: they would be trained, and the network would not",
                "make the optimizer in configure_optimizers, of self.parameters()",
            )
        ]
    trained = [n for n, p in module.named_parameters() if p.requires_grad]
    missing = [names[i] for i in names.keys() - held if names[i] in trained]
    if missing:
        return [
            warning(
                f"no optimizer has {listed(sorted(missing))}, which require gradients and would "
                "never change",
                "give them to the optimizer, or freeze them (requires_grad_(False))",
            )
        ]
    kinds = ", ".join(type(one).__name__ for one in trainer.optimizers)
    return [fine(f"{kinds} with all {len(trained)} tensors that are trained")]


def _epochs(trainer: Trainer) -> float | None:
    """Return how many epochs ``max_steps`` allows; None if it sets no limit."""
    steps = trainer.num_training_batches / max(1, trainer.accumulate_grad_batches)
    if trainer.max_steps < 0 or not steps or not math.isfinite(steps):
        return None
    epochs = trainer.max_steps / math.ceil(steps)
    limit = trainer.max_epochs
    return None if limit is not None and 0 <= limit <= epochs else epochs


def _earliest_stop(trainer: Trainer, stopping: EarlyStopping) -> float:
    """Return the first epoch at whose end a run may be stopped, in the worst case."""
    every = trainer.check_val_every_n_epoch or 1
    interval = trainer.val_check_interval
    checks = 1.0
    if isinstance(interval, float) and 0 < interval < 1 and not stopping._check_on_train_epoch_end:
        checks = 1 / interval  # several in an epoch
    at_once = stopping.stopping_threshold is not None or stopping.divergence_threshold is not None
    # The first check only sets what the next ones are compared with.
    needed = 1 if at_once else stopping.patience + 1
    epoch = math.ceil(needed / checks) * every - 1
    return max(epoch, (trainer.min_epochs or 0) - 1)


def _too_early(
    trainer: Trainer, stopping: EarlyStopping, pruner: PruningCallback, earliest: float
) -> Answer:
    last, every = pruner.last_epoch, trainer.check_val_every_n_epoch or 1
    found = (
        f"EarlyStopping (patience {stopping.patience}, {stopping.monitor}) may end the run after "
        f"epoch {int(earliest)}, and {type(pruner).__name__} prunes until epoch {last}"
    )
    remedy = f"set trainer.min_epochs to {last + 2}"
    if stopping.stopping_threshold is None and stopping.divergence_threshold is None:
        remedy += f", patience to {math.ceil((last + 1) / every)} or more"
    return warning(found, f"{remedy}, or schedule.last to {int(earliest)} at most")


def _watched(trainer: Trainer) -> list[tuple[str, str, str | None]]:
    """Return who watches which metric, and in which mode."""
    found: list[tuple[str, str, str | None]] = []
    for callback in callbacks(trainer):
        if not isinstance(callback, (ModelCheckpoint, EarlyStopping)):
            continue
        if isinstance(callback.monitor, str):
            found.append((type_name(callback), callback.monitor, callback.mode))
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.monitor is not None:
            mode = getattr(config.scheduler, "mode", None)
            found.append((type(config.scheduler).__name__, str(config.monitor), mode))
    return found


def type_name(callback: object) -> str:
    """Return the name of a callback's class, also of one that is only read."""
    return callback.__class__.__name__


def _may_be_logged(
    trainer: Trainer, module: LightningModule, monitor: str, keys: Collection[str]
) -> bool:
    """Tell whether a metric is logged, or may be at a place that was not run."""
    if monitor in keys or monitor.startswith(OURS):
        return True
    name, _, kind = monitor.rpartition("_")
    if kind in FORKS and name in keys:
        return True
    if any(is_overridden(hook, module, LightningModule) for hook in LATER):
        return True
    return any(not one.__class__.__module__.startswith(KNOWN) for one in callbacks(trainer))


def _number(epochs: int | None) -> str:
    return "no limit of" if epochs is None or epochs < 0 else str(epochs)
