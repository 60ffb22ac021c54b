"""Copies of the user's module, and the surroundings in which their steps run."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import Metric as TorchMetric

from lit_compress.attributes import replaced_attributes
from lit_compress.evaluation.run_view.trainer import TrainerView
from lit_compress.evaluation.trainer_access import callbacks, datamodule

#: Loggers that tell about a Trainer.
NOISY = ("lightning.pytorch", "lightning.fabric")
#: Methods that Lightning replaces on an instance when it compiles a module.
COMPILED = ("forward", "training_step", "validation_step", "test_step", "predict_step")


@contextmanager
def attached(module: LightningModule, view: TrainerView) -> Iterator[None]:
    """Show a copy of the module a view of its Trainer, until the end of the block."""
    before = module._trainer
    module._metric_attributes = None
    with ExitStack() as stack:
        for child in module.modules():
            if isinstance(child, TorchMetric):
                child.distributed_available_fn = _alone
                child.reset()
            if isinstance(child, nn.SyncBatchNorm):  # there is no other process to ask
                alone = partial(_BatchNorm.forward, child)
                stack.enter_context(replaced_attributes(child, forward=alone))
        stack.enter_context(replaced_attributes(module, print=_say_nothing))
        module.trainer = view
        try:
            yield
        finally:
            module.trainer = before


@contextmanager
def in_run(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Move a copy to the device and the precision of the run's module, until the end of the block.

    Args:
        trainer: The run in progress.
        module: The copy; parts that the run's module lacks stay as they are.
    """
    run = trainer.lightning_module
    run = module if run is None else run  # a module may have a length, and it may be 0
    device, home = run.device, module.device
    likes = {name: tensor.dtype for name, tensor in _tensors(run)}
    changed = [
        (tensor, tensor.dtype)
        for name, tensor in _tensors(module)
        if likes.get(name, tensor.dtype) != tensor.dtype
    ]
    for name, tensor in _tensors(module):
        tensor.data = tensor.data.to(likes.get(name, tensor.dtype))
    if device != home:
        module.to(device)
    try:
        yield
    finally:
        for tensor, dtype in changed:
            tensor.data = tensor.data.to(dtype)
        if device != home:
            module.to(home)


def clone(trainer: Trainer, pl_module: LightningModule) -> LightningModule:
    """Return a copy of a module on the CPU, in eval mode and in single precision.

    Objects of the run that the module refers to are shared, not copied: under the command line the
    constructor of its scheduler refers to the strategy, and so to DDP's wrapper, which cannot be
    copied.

    Args:
        trainer: The run in progress.
        pl_module: The user's module.
    """
    return clone_with(trainer, pl_module, None)[0].cpu().float().eval()


def clone_of_state(trainer: Trainer, copy: LightningModule) -> LightningModule:
    """Return a further copy of a copy, which has the same weights, but buffers of its own.

    Args:
        trainer: The run in progress.
        copy: The copy.
    """
    return clone_with(trainer, copy, None, list(copy.parameters()))[0].eval()


def clone_with(
    trainer: Trainer, pl_module: LightningModule, other: Any, kept: Sequence[Any] = ()
) -> tuple[LightningModule, Any]:
    """Return a copy of a module, and of what refers to its parameters, such as optimizers.

    Args:
        trainer: The run in progress.
        pl_module: The user's module.
        other: What refers to it; in its copy it refers to the copied module.
        kept: Parts of the module that are not copied.
    """
    run: list[Any] = [*kept, trainer, trainer.strategy, datamodule(trainer)]
    run += [*callbacks(trainer), *trainer.loggers, *([] if other else trainer.optimizers)]
    run += [wrapper for wrapper in (trainer.strategy.model,) if wrapper is not pl_module]
    shared: dict[int, Any] = {id(part): part for part in run}
    attributes = [value for child in pl_module.modules() for value in vars(child).values()]
    for value in attributes:
        if isinstance(value, Tensor) and value.grad_fn is not None:
            shared[id(value)] = value.detach()
    try:
        made, more = copy.deepcopy((pl_module, other), dict(shared))
    except (TypeError, RuntimeError):
        shared |= {id(value): value for value in attributes if not _can_be_copied(value, shared)}
        made, more = copy.deepcopy((pl_module, other), shared)
    if getattr(made, "_compiler_ctx", None) is not None:
        # Lightning sets compiled methods on the instance; the copy's would call the original's.
        made._compiler_ctx = None
        for name in COMPILED:
            vars(made).pop(name, None)
    return made, more


def _tensors(module: LightningModule) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _can_be_copied(value: Any, shared: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(shared))
    except (TypeError, RuntimeError):
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages and warnings of a run aside; errors are still raised."""
    loggers = [
        logging.getLogger(name)
        for name in list(logging.Logger.manager.loggerDict)
        if name.startswith(NOISY)
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _alone() -> bool:
    return False


def _say_nothing(*_: Any, **__: Any) -> None:
    pass
