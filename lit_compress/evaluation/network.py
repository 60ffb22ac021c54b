"""Finding the network inside a LightningModule, and recording its calls during validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lit_compress.errors import InvalidArgumentError
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
        InvalidArgumentError: If the module has no part of that name.
    """
    if submodule is not None:
        named_module(module, submodule)
        return [submodule]
    total = _weights(module)
    main = [name for name, child in module.named_children() if 2 * _weights(child) > total]
    return ["", *main]


def record_calls(
    trainer: Trainer,
    module: LightningModule,
    loaders: list[Any],
    paths: Sequence[str],
    batches: int,
    keep: Callable[[str, tuple[Any, ...], dict[str, Any]], T],
) -> dict[str, list[T]]:
    """Run validation and record how parts of a module are called.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: Loaders to validate on.
        paths: Names of the parts.
        batches: Number of batches to validate on.
        keep: Called with the name of a part, and the positional and keyword arguments of its call;
            what it returns is recorded.

    Returns:
        By the name of a part, what was recorded, in the order of the calls. Parts that validation
        never called are missing.
    """
    calls: dict[str, list[T]] = {}

    def recorder(path: str) -> Callable[..., None]:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.setdefault(path, []).append(keep(path, args, kwargs))

        return record

    handles = [
        module.get_submodule(path).register_forward_pre_hook(recorder(path), with_kwargs=True)
        for path in paths
    ]
    try:
        # A compiled step does not call hooks.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            validate(trainer, module, loaders, batches)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def child_names(module: nn.Module) -> str:
    """Return the names of a module's children, for messages."""
    return ", ".join(name for name, _ in module.named_children()) or "none"


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
