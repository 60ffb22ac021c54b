"""Checks that a plan can be applied, made before anything is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from lit_compress.errors import ChannelError, PlanError
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.widths import named_width


def check_tensors(plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    """Check that a plan matches the shapes of a module's tensors.

    Args:
        plan: The plan.
        tensors: Parameters and buffers of the module by name.

    Raises:
        PlanError: If it does not match.
    """
    for cut in plan.cuts:
        tensor = tensors.get(cut.tensor)
        if tensor is None:
            raise PlanError(
                f"the plan cuts {cut.tensor}, which the module does not have: make a plan for "
                "this network, since this one is for another network"
            )
        if cut.dim >= tensor.dim() or tensor.shape[cut.dim] != cut.size:
            raise PlanError(
                f"the plan expects {cut.size} indices in dimension {cut.dim} of {cut.tensor}, "
                f"whose shape is {tuple(tensor.shape)}: the plan is for another network, or was "
                "applied already"
            )


def check_module(module: object) -> None:
    """Check that a value is a torch module.

    Raises:
        ChannelError: If it is not.
    """
    if not isinstance(module, nn.Module):
        raise ChannelError(f"expected a torch module, got {type(module).__name__}")


def check_types(plan: object, target: object, optimizers: Iterable[object]) -> None:
    """Check the types of the arguments of :func:`lit_compress.pruning.apply`.

    Raises:
        PlanError: If one has another type.
    """
    if not isinstance(plan, Plan):
        raise PlanError(
            f"expected a Plan, got {type(plan).__name__}: make one with make_plan or Plan.from_dict"
        )
    if not isinstance(target, (nn.Module, Optimizer)):
        raise PlanError(f"expected a module or an optimizer, got {type(target).__name__}")
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise PlanError(f"expected a torch optimizer, got {type(optimizer).__name__}")


def check_widths(plan: Plan, module: nn.Module) -> None:
    """Check that a module has the widths that a plan names, and that they are large enough.

    Raises:
        PlanError: If one is missing, or is smaller than what the plan keeps.
    """
    for name, width in plan.widths.items():
        own = named_width(module, name)
        if own is None or not 0 < width <= own:
            raise PlanError(
                f"the plan keeps {width} channels in {name}, which "
                + ("does not exist" if own is None else f"has {own}")
                + ": make a plan for this network, since this one is for another network"
            )


def check_owned(optimizers: Iterable[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Check that each optimizer holds parameters of a module.

    Args:
        optimizers: The optimizers.
        tensors: Parameters and buffers of the module by name.

    Raises:
        PlanError: If an optimizer holds only other parameters.
    """
    own = {id(tensor) for tensor in tensors.values()}
    for optimizer in optimizers:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if held and not any(id(parameter) in own for parameter in held):
            raise PlanError(
                f"{type(optimizer).__name__} holds no parameter of the module, but of another "
                "module or of copies of its weights: pass the optimizer of this module"
            )
