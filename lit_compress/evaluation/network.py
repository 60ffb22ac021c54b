"""Finding the network inside a LightningModule, and recording its calls during validation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.jit import ScriptModule

from lit_compress.attributes import replaced_attributes
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.loaders import copied, sampled, training_loaders
from lit_compress.evaluation.run_view.copies import clone_with
from lit_compress.evaluation.run_view.training import train
from lit_compress.evaluation.validate import validate

T = TypeVar("T")


def named_module(module: LightningModule, path: str) -> nn.Module:
    """Return a part of a module by its name.

    Args:
        module: The module.
        path: Name of the part, such as ``model.features``; empty for the module itself.

    Raises:
        InvalidArgumentError: If the module has no part of that name.
    """
    try:
        return module.get_submodule(path)
    except AttributeError:
        raise InvalidArgumentError(
            f"submodule: {type(module).__name__} has no module {path!r}; its children are: "
            f"{child_names(module)}"
        ) from None


def network_paths(module: LightningModule, submodule: str | None) -> list[str]:
    """Return the names of the parts that may be the network, the most likely one first.

    The network is the part that the user names; otherwise the LightningModule itself, or, if
    validation never calls its forward, the child that has more than half of its weights.

    Args:
        module: The user's module, or a copy of it.
        submodule: Name that the user gave; None if none.

    Raises:
        InvalidArgumentError: If the module has no part of that name, or the network is TorchScript.
    """
    if submodule is not None:
        _refuse_script(module, submodule)
        return [submodule]
    total = _weights(module)
    main = [name for name, child in module.named_children() if 2 * _weights(child) > total]
    for name in main:
        _refuse_script(module, name)
    return ["", *(_uncompiled(module, name) for name in main)]


def _refuse_script(module: LightningModule, name: str) -> None:
    if isinstance(named_module(module, name), ScriptModule):
        raise InvalidArgumentError(
            f"{name} of {type(module).__name__} is TorchScript (torch.jit), which can be neither "
            "pruned nor converted to int8: train the module without torch.jit"
        )


def record_calls(
    trainer: Trainer,
    module: LightningModule,
    loaders: list[Any],
    paths: Sequence[str],
    batches: int,
    keep: Callable[[str, tuple[Any, ...], dict[str, Any]], T],
    seed: int | None = None,
) -> dict[str, list[T]]:
    """Run validation and record how parts of a module are called.

    Where validation calls none of them (it does nothing, or there is none), training steps run on
    another copy instead: self-supervised modules often call their network there alone.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: Loaders to validate on.
        paths: Names of the parts.
        batches: Number of batches to run on.
        keep: Called with the name of a part, and the positional and keyword arguments of its call;
            what it returns is recorded.
        seed: Random seed of the batches that training steps run on; None takes them as they come.

    Returns:
        By the name of a part, what was recorded, in the order of the calls. Parts that were never
        called are missing.
    """
    calls: dict[str, list[T]] = {}
    if loaders:
        # A compiled step does not call what is replaced.
        eager = torch.compiler.set_stance("force_eager")
        with torch.no_grad(), eager, _recorded(module, paths, keep, calls):
            validate(trainer, module, loaders, batches)
    if not calls and trainer.optimizers:
        copy, optimizers = clone_with(trainer, trainer.lightning_module, trainer.optimizers)
        found = (copied(loader) for loader in training_loaders(trainer))
        loaders = [loader for loader in found if loader is not None]
        if seed is not None:
            loaders = [sampled(loader, batches, seed) for loader in loaders]
        with torch.compiler.set_stance("force_eager"), _recorded(copy, paths, keep, calls):
            train(trainer, copy, optimizers, loaders, batches)
    return calls


@contextmanager
def _recorded(
    module: LightningModule,
    paths: Sequence[str],
    keep: Callable[[str, tuple[Any, ...], dict[str, Any]], T],
    calls: dict[str, list[T]],
) -> Iterator[None]:
    """Record the calls of parts: of the forward itself too, which runs no hooks."""

    def recorder(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def record(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                calls.setdefault(path, []).append(keep(path, args, kwargs))
            return forward(*args, **kwargs)

        return record

    with ExitStack() as stack:
        for path in paths:
            part = module.get_submodule(path)
            stack.enter_context(replaced_attributes(part, forward=recorder(path, part.forward)))
        yield


def _uncompiled(module: nn.Module, name: str) -> str:
    """Return the name of the module inside, for a child that torch.compile has wrapped."""
    inside = getattr(module.get_submodule(name), "_orig_mod", None)
    return f"{name}._orig_mod" if isinstance(inside, nn.Module) else name


def child_names(module: nn.Module) -> str:
    """Return the names of a module's children, for messages."""
    return ", ".join(name for name, _ in module.named_children()) or "none"


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
