"""Optimizers whose state must follow the removal of channels."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from lit_compress.errors import InvalidArgumentError
from lit_compress.pruning.channels.surgery import WHOLE


def optimizers_of(trainer: Trainer, module: LightningModule) -> list[Optimizer]:
    """Return the optimizers of a run, with those that a module made for itself.

    In manual optimization an optimizer may be an attribute of the module that the trainer does not
    know.

    Args:
        trainer: The run.
        module: The user's module.
    """
    own = {id(parameter) for parameter in module.parameters()}
    found = list(trainer.optimizers)
    for leaf in tree_leaves(list(vars(module).values())):
        if not isinstance(leaf, Optimizer) or any(leaf is other for other in found):
            continue
        if any(id(parameter) in own for parameter in _held(leaf)):
            found.append(leaf)
    return found


def check_optimizers(
    name: str, optimizers: Iterable[Optimizer], stepped: bool = True, what: str = "channels"
) -> None:
    """Check that the state of optimizers can follow the removal of channels or blocks.

    Args:
        name: Name of the callback that removes them.
        optimizers: The optimizers.
        stepped: Whether they are removed after a step, when there is state.
        what: What is removed. Channels can also be removed at the end.

    Raises:
        InvalidArgumentError: If one keeps a single state for all parameters, or a second optimizer
            or copies of the weights.
    """
    later = 'set shrink to "end", or ' if what == "channels" else ""
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        if within := _kept_within(optimizer):
            raise InvalidArgumentError(
                f"{name} cannot remove {what} from {kind} (as SAM and Lookahead are): it keeps "
                f"{within}, which is not cut along: {later}use a plain optimizer until the target "
                "is reached, and this one in a later fit"
            )
        if kind in WHOLE and stepped:
            raise InvalidArgumentError(
                f"{name} cannot remove {what} from the state of {kind}, which keeps one joint "
                f"state for all parameters: {later}use SGD, Adam, AdamW, RMSprop or Adagrad"
            )


def _kept_within(optimizer: Optimizer) -> str:
    """Return what an optimizer keeps of the weights next to its state; empty if nothing."""
    held = _held(optimizer)
    own, shapes = set(map(id, held)), {p.shape for p in held if p.dim() > 1}
    for name, value in vars(optimizer).items():
        if name in ("state", "param_groups", "defaults"):
            continue
        leaves = tree_leaves(value)
        if any(isinstance(leaf, Optimizer) for leaf in leaves):
            return f"another optimizer ({name})"
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if any(tensor.shape in shapes and id(tensor) not in own for tensor in tensors):
            return f"copies of the weights ({name})"
    return ""


def _held(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
