"""An example of what a LightningModule's network takes: stated by it, or seen in validation."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.export_target import named_module
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.validate import clone, validate
from lit_compress.measure.cost import Inputs, forward_arguments

#: Images that are enough to follow channels: two, as some networks do not take one.
ENOUGH = 2


@dataclass(frozen=True)
class ExampleInputs:
    """What a network takes.

    Attributes:
        submodule: Name of the module that takes it; empty for the LightningModule's own forward.
        inputs: A tensor, a tuple of arguments, or a mapping of keyword arguments.
    """

    submodule: str
    inputs: Inputs


def find_example_inputs(
    trainer: Trainer, pl_module: LightningModule, submodule: str | None
) -> ExampleInputs:
    """Return an example input of a network, on its device.

    It is the module's ``example_input_array`` if it has one, and otherwise what reaches its forward
    (or that of the child that holds all weights, or of ``submodule``) in the first validation
    batch.

    Args:
        trainer: The run in progress.
        pl_module: The user's module.
        submodule: Name of the part to look at; None looks for it.

    Raises:
        InvalidArgumentError: If there is neither, or no such submodule.
    """
    stated = pl_module.example_input_array
    if submodule is None and stated is not None:
        found = ExampleInputs("", stated)
    else:
        found = _recorded(trainer, pl_module, submodule)
    inputs = trainer.precision_plugin.convert_input(found.inputs)
    return ExampleInputs(found.submodule, move_data_to_device(inputs, pl_module.device))


def _recorded(trainer: Trainer, pl_module: LightningModule, submodule: str | None) -> ExampleInputs:
    copy = clone(trainer, pl_module)
    paths = ["", *(name for name, _ in copy.named_children())]
    if submodule is not None:
        named_module(copy, submodule)
        paths = [submodule]
    seen = _first_calls(trainer, copy, paths)
    for path in paths:
        if path in seen and (submodule or _holds_most(copy.get_submodule(path), copy)):
            if not _takes(copy.get_submodule(path), seen[path]):
                seen = _first_calls(trainer, copy, [path], count=None)
            return ExampleInputs(path, seen[path])
    raise InvalidArgumentError(
        f"there is no example of what {submodule or type(pl_module).__name__} takes: set "
        "example_input_array in the LightningModule, or give the fit validation data whose "
        f"validation_step calls {submodule or 'its forward or a child that holds all weights'}"
    )


def _first_calls(
    trainer: Trainer, copy: LightningModule, paths: list[str], count: int | None = ENOUGH
) -> dict[str, Inputs]:
    """Return what a module is first called with in validation, cut to a count of elements."""
    loaders = validation_loaders(trainer)
    seen: dict[str, Inputs] = {}

    def recorder(path: str) -> Any:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if path not in seen:
                inputs = (*args,) if not kwargs else _named(copy, path, args, kwargs)
                seen[path] = _first(inputs, count)

        return record

    if not loaders:
        return seen
    handles = [
        copy.get_submodule(path).register_forward_pre_hook(recorder(path), with_kwargs=True)
        for path in paths
    ]
    try:
        # Inside a compiled step, hooks would not be called.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            validate(trainer, copy, loaders, 1)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _takes(called: nn.Module, inputs: Inputs) -> bool:
    """Tell whether a forward takes fewer elements than the batch had."""
    args, kwargs = forward_arguments(inputs)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            called(*args, **kwargs)
    except Exception:  # it may count on the batch size, and then gets the whole batch
        return False
    return True


def _named(
    copy: LightningModule, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by the names that the forward gives them."""
    bound = signature(copy.get_submodule(path).forward).bind(*args, **kwargs)
    named = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
        elif name in named and parameter.kind in (
            Parameter.POSITIONAL_ONLY,
            Parameter.VAR_POSITIONAL,
        ):
            raise InvalidArgumentError(
                f"the forward of {path or type(copy).__name__} is called with keywords and with "
                f"{name!r}, which cannot be given by name: set example_input_array, or call it "
                "with keywords or positions alone"
            )
    return named


def _first(inputs: Any, count: int | None) -> Any:
    """Return the first elements of a batch: of all tensors as long as the first."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    if not tensors:
        return inputs
    length = len(tensors[0])
    return tree_map(
        lambda v: (
            v[:count].clone() if isinstance(v, Tensor) and v.dim() and len(v) == length else v
        ),
        inputs,
    )


def _holds_most(child: nn.Module, module: nn.Module) -> bool:
    own = sum(parameter.numel() for parameter in child.parameters())
    return 2 * own > sum(parameter.numel() for parameter in module.parameters())
