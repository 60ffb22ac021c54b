"""Example inputs of a network: stated by the LightningModule, or recorded during validation."""

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
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.network import network_paths, record_calls
from lit_compress.evaluation.run_view.copies import clone, in_run
from lit_compress.measure.cost import Inputs, forward_arguments

#: Rows of a batch that are enough to follow channels. Some networks refuse a batch of one.
ENOUGH = 2


@dataclass(frozen=True)
class ExampleInputs:
    """Example inputs of a network.

    Attributes:
        submodule: Name of the module that takes them; empty for the LightningModule's own forward.
        inputs: A tensor, a tuple of arguments, or a mapping of keyword arguments.
    """

    submodule: str
    inputs: Inputs


def find_example_inputs(
    trainer: Trainer, pl_module: LightningModule, submodule: str | None
) -> ExampleInputs:
    """Return example inputs of a network, on its device.

    They are the module's ``example_input_array`` if it has one, and otherwise the arguments of the
    first call of the network in validation, or else in training (see
    :func:`~lit_compress.evaluation.network.network_paths`).

    Args:
        trainer: The run in progress.
        pl_module: The user's module.
        submodule: Name of the part that is the network; None searches for it.

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
    paths = network_paths(copy, submodule)
    seen = _first_calls(trainer, copy, paths)
    for path in paths:
        if path in seen:
            with in_run(trainer, copy):
                accepted = _accepts(copy.get_submodule(path), seen[path])
            if not accepted:
                seen = _first_calls(trainer, copy, [path], count=None)
            return ExampleInputs(path, seen[path])
    raise InvalidArgumentError(
        f"there are no example inputs of {submodule or type(pl_module).__name__}: set "
        "example_input_array in the LightningModule, or name by submodule the part that "
        "validation_step or training_step calls; it was looked for in "
        f"{submodule or 'its forward, and in a child with more than half of the weights'}"
    )


def _first_calls(
    trainer: Trainer, copy: LightningModule, paths: list[str], count: int | None = ENOUGH
) -> dict[str, Inputs]:
    """Return the arguments of the first call of each part, cut to ``count`` rows."""
    loaders = validation_loaders(trainer)
    seen: set[str] = set()

    def keep(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs | None:
        if path in seen:
            return None
        seen.add(path)
        inputs: Inputs = (*args,) if not kwargs else _named(copy, path, args, kwargs)
        return _first_rows(inputs, count)

    calls = record_calls(trainer, copy, loaders, paths, batches=1, keep=keep)
    return {path: kept[0] for path, kept in calls.items() if kept[0] is not None}


def _accepts(network: nn.Module, inputs: Inputs) -> bool:
    """Tell whether a forward accepts fewer rows than the batch had."""
    args, kwargs = forward_arguments(inputs)
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            network(*args, **kwargs)
    except Exception:  # it may depend on the batch size; it then gets the whole batch
        return False
    return True


def _named(
    copy: LightningModule, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by the names of the forward's parameters."""
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


def _first_rows(inputs: Inputs, count: int | None) -> Inputs:
    """Return the first rows of a batch: of each tensor that is as long as the first."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()]
    if not tensors:
        return inputs
    length = len(tensors[0])
    cut: Inputs = tree_map(
        lambda v: (
            v[:count].clone() if isinstance(v, Tensor) and v.dim() and len(v) == length else v
        ),
        inputs,
    )
    return cut
