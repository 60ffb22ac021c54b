"""Training steps of the user's on a copy of the module, while a fit is in progress."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.optimization.automatic import _AutomaticOptimization
from lightning.pytorch.loops.optimization.manual import _ManualOptimization
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch.optim import Optimizer

from lit_compress.evaluation.loaders import unmoved
from lit_compress.evaluation.run_view.copies import attached, in_run, quiet
from lit_compress.evaluation.run_view.trainer import TrainerView


def train(
    trainer: Trainer,
    module: LightningModule,
    optimizers: Sequence[Optimizer],
    loaders: list[Any],
    batches: int = 1,
) -> dict[str, Any]:
    """Run the user's own training steps on a copy, with its hooks, backward and optimizers.

    What the steps read of the run is true, and nothing of the run changes.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module; it is trained, and is in training mode afterwards.
        optimizers: Optimizers of the copy.
        loaders: Loaders of training batches.
        batches: Largest number of batches.

    Returns:
        The metrics that callbacks see afterwards.
    """
    results = _ResultCollection(training=True)
    precision = copy.deepcopy(trainer.strategy.precision_plugin)  # its scaler counts the steps
    with in_run(trainer, module), quiet(), isolate_rng(), unmoved(loaders):
        view = TrainerView(
            trainer,
            module,
            RunningStage.TRAINING,
            results,
            optimizers=optimizers,
            precision=precision,
        )
        with attached(module, view), torch.enable_grad():
            module.train()
            for loader in loaders:
                _run(view, module, iter(loader), batches)
    return {**results.metrics(True)["callback"], **results.metrics(False)["callback"]}


def _run(view: Any, module: LightningModule, loader: Iterator[Any], batches: int) -> None:
    if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
        numbered = ((batch, number, 0) for number, batch in enumerate(loader))
        _optimize(view, module, OrderedDict(dataloader_iter=numbered), 0)
        return
    for number, batch in zip(range(batches), loader, strict=False):
        batch = view.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = call._call_strategy_hook(view, "batch_to_device", batch, dataloader_idx=0)
        view._logger_connector.on_batch_start(batch)
        if call._call_lightning_module_hook(view, "on_train_batch_start", batch, number) == -1:
            return  # the user's way to end an epoch
        given = OrderedDict(batch=batch)
        if is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2):
            given["batch_idx"] = number
        outputs = _optimize(view, module, given, number)
        call._call_lightning_module_hook(view, "on_train_batch_end", outputs, batch, number)


def _optimize(
    view: Any, module: LightningModule, given: OrderedDict[str, Any], number: int
) -> dict[str, Any]:
    if not module.automatic_optimization:
        return _ManualOptimization(view).run(given)
    return _AutomaticOptimization(view).run(view.optimizers[0], number, given)
