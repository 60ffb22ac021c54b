"""Check the states of optimizers, schedulers and loops in a checkpoint when they are loaded.

torch and Lightning take most of them as they are, and a damaged one fails in a later step.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import lr_scheduler

from lit_compress.errors import CheckpointError

#: Optimizers that treat each number of a parameter in the same way, so that one can stand for all.
ELEMENTWISE = (
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam),
    *(torch.optim.Adamax, torch.optim.Adadelta, torch.optim.Adagrad, torch.optim.RMSprop),
    *(torch.optim.ASGD, torch.optim.Rprop),
)
#: Schedulers of one optimizer whose step takes no arguments, and calls no function of the user.
SIMPLE = (
    *(lr_scheduler.StepLR, lr_scheduler.MultiStepLR, lr_scheduler.ConstantLR),
    *(lr_scheduler.LinearLR, lr_scheduler.ExponentialLR, lr_scheduler.PolynomialLR),
    *(lr_scheduler.CosineAnnealingLR, lr_scheduler.OneCycleLR),
)


def check_values(content: Any, place: str = "the checkpoint") -> None:
    """Check that all tensors of a checkpoint have values.

    Args:
        content: The checkpoint, or a part of it.
        place: What it is, for the message.

    Raises:
        CheckpointError: If one has only a shape.
    """
    if isinstance(content, Tensor) and content.device.type == "meta":
        raise CheckpointError(f"{place} has no values, only a shape: take another checkpoint")
    if isinstance(content, (list, tuple)):
        content = dict(enumerate(content))
    for key, part in content.items() if isinstance(content, Mapping) else ():
        check_values(part, f"{key!r} in {place}"[:200])


@contextmanager
def checked_states(trainer: Trainer, content: Mapping[str, Any]) -> Iterator[None]:
    """Check what Lightning restores in the block: states of loops, optimizers and schedulers.

    Args:
        trainer: The run, before they are restored.
        content: The checkpoint.

    Raises:
        CheckpointError: If a state is not like that of a new run, or a step with it fails.
    """
    loops = content.get("loops")
    if isinstance(loops, Mapping):
        check_like(trainer.fit_loop.state_dict(), loops.get("fit_loop", {}), "loops")
    saved = content.get("lr_schedulers", ())
    for config, state in zip(trainer.lr_scheduler_configs, saved, strict=False):
        if type(config.scheduler).__module__ == lr_scheduler.__name__:
            check_like(config.scheduler.state_dict(), state, "lr_schedulers", counts=False)
            _check_attributes(config.scheduler, state)
    yield
    for optimizer in trainer.optimizers:
        if type(optimizer) in ELEMENTWISE:
            try_step(optimizer)
    for config in trainer.lr_scheduler_configs:
        if type(config.scheduler) in SIMPLE:
            _try_schedule(config.scheduler)


def check_like(new: Any, given: Any, place: str, counts: bool = True) -> None:
    """Check that a value has the kind of another; values that are None may become anything.

    Args:
        new: The value in a new run.
        given: That of the checkpoint.
        place: What it is, for the message.
        counts: Whether whole numbers are counts. If not, they may become any number, as a
            learning rate of 1 does.

    Raises:
        CheckpointError: If it is of another kind, or a count is negative.

    Example:
        >>> check_like({"ready": 0}, {"ready": 3}, "loops")
        >>> check_like({"ready": 0}, {"ready": "x"}, "loops")
        Traceback (most recent call last):
        ...
        lit_compress.errors.CheckpointError: 'ready' in loops should be a whole number from 0, and \
is 'x': take another checkpoint
    """
    if isinstance(new, bool):
        _expect(isinstance(given, bool), "true or false", given, place)
    elif isinstance(new, int) and counts:
        # A count may be -1 in a run that has not begun: the scheduler's last_epoch.
        whole = isinstance(given, int) and not isinstance(given, bool)
        _expect(whole and given >= min(new, 0), "a whole number from 0", given, place)
    elif isinstance(new, (int, float)):
        _expect(_is_number(given), "a number", given, place)
    elif isinstance(new, str):
        _expect(isinstance(given, str), "text", given, place)
    elif isinstance(new, Mapping):
        _expect(isinstance(given, Mapping), "a dictionary", given, place)
        for key in new.keys() & given.keys():
            check_like(new[key], given[key], f"{key!r} in {place}", counts)
    elif isinstance(new, (list, tuple)):
        _expect(isinstance(given, (list, tuple)), "a list", given, place)
        for at, part in enumerate(given if new else ()):
            check_like(new[min(at, len(new) - 1)], part, f"{at} in {place}", counts)


def try_step(optimizer: torch.optim.Optimizer) -> None:
    """Take a step with the state of an optimizer, on one number in place of each parameter.

    Args:
        optimizer: An optimizer that treats each number in the same way. It is not changed.

    Raises:
        CheckpointError: If the state of a parameter has another shape.
        Exception: Of torch, if the step fails.
    """
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name != "params"}
        for parameter in group["params"]:
            one = torch.zeros(1, dtype=parameter.dtype, device=parameter.device)
            one.grad = torch.zeros_like(one)
            trial = cast(Any, type(optimizer))([one])
            trial.param_groups[0] = {**options, "params": [one]}
            state = optimizer.state.get(parameter, {})
            if state:
                trial.state[one] = {name: _one(v, parameter, one) for name, v in state.items()}
            trial.step()


def _one(value: Any, parameter: Tensor, one: Tensor) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return copy.copy(value) if not isinstance(value, Tensor) else value.clone()
    if value.shape != parameter.shape:
        raise CheckpointError(
            f"the state of an optimizer has the shape {tuple(value.shape)} for a parameter of "
            f"{tuple(parameter.shape)}: take another checkpoint"
        )
    return torch.zeros_like(one, dtype=value.dtype)


def _try_schedule(scheduler: Any) -> None:
    """Take a step of a scheduler on a copy, with an optimizer of as many groups."""
    if getattr(scheduler, "total_steps", math.inf) <= scheduler.last_epoch:
        return  # OneCycleLR refuses a step after its last one, which a finished run never takes
    groups: list[dict[str, Any]] = [{"params": [torch.zeros(1)]} for _ in scheduler.base_lrs]
    trial = copy.copy(scheduler)
    trial.optimizer = torch.optim.SGD(groups)
    for own, group in zip(
        trial.optimizer.param_groups, scheduler.optimizer.param_groups, strict=True
    ):
        own.update({name: value for name, value in group.items() if name != "params"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial.step()


def _check_attributes(scheduler: Any, state: Mapping[str, Any]) -> None:
    """Check that a state replaces no function of a scheduler: torch takes it as its attributes."""
    for name in state:
        known = isinstance(name, str) and not callable(getattr(type(scheduler), name, None))
        _expect(known and name != "optimizer", "the name of a value", name, "lr_schedulers")


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _expect(holds: bool, wanted: str, given: Any, place: str) -> None:
    if not holds:
        found = repr(given)[:60]
        raise CheckpointError(
            f"{place} should be {wanted}, and is {found}: take another checkpoint"
        )
