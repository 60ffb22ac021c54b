"""Whether a plan can be applied: all is looked at before anything is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from lit_compress.errors import ChannelError, PlanError
from lit_compress.pruning.channels.plan import Plan


def check_tensors(plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    """Make sure that a plan fits tensors.

    Raises:
        PlanError: If it does not.
    """
    for cut in plan.cuts:
        tensor = tensors.get(cut.tensor)
        if tensor is None:
            raise PlanError(
                f"the plan cuts {cut.tensor}, which the module does not have: it is a plan for "
                "another network"
            )
        if cut.dim >= tensor.dim() or tensor.shape[cut.dim] != cut.size:
            raise PlanError(
                f"the plan expects {cut.size} indices in dimension {cut.dim} of {cut.tensor}, "
                f"whose shape is {tuple(tensor.shape)}: it is a plan for other shapes, or was "
                "applied already"
            )


def check_module(module: object) -> None:
    """Make sure that a module is one.

    Raises:
        ChannelError: If it is not.
    """
    if not isinstance(module, nn.Module):
        raise ChannelError(f"expected a torch module, got {type(module).__name__}")


def check_types(plan: object, target: object, optimizers: Iterable[object]) -> None:
    """Make sure that a plan is given, and what it can be applied to.

    Raises:
        PlanError: If not.
    """
    if not isinstance(plan, Plan):
        raise PlanError(
            f"expected a Plan, got {type(plan).__name__}: Plan.from_dict makes one of to_dict's"
        )
    if not isinstance(target, (nn.Module, Optimizer)):
        raise PlanError(f"a plan is applied to a module or optimizer, got {type(target).__name__}")
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise PlanError(f"expected a torch optimizer, got {type(optimizer).__name__}")


def check_norms(plan: Plan, module: nn.Module) -> None:
    """Make sure that the norm layers without tensors that a plan names are there, and no smaller.

    Raises:
        PlanError: If one is not.
    """
    layers = dict(module.named_modules())
    for name, width in plan.norms.items():
        layer = layers.get(name)
        own = layer.num_channels if isinstance(layer, nn.GroupNorm) else None
        own = layer.num_features if isinstance(layer, _NormBase) else own
        if own is None or not 0 < width <= own:
            raise PlanError(
                f"the plan leaves {width} channels in the norm layer {name}, which "
                + ("is not there" if own is None else f"has {own}")
                + ": it is a plan for another network"
            )


def check_owned(optimizers: Iterable[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Make sure that optimizers hold parameters of a module, given its tensors by name.

    Raises:
        PlanError: If one holds none.
    """
    own = {id(tensor) for tensor in tensors.values()}
    for optimizer in optimizers:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if held and not any(id(parameter) in own for parameter in held):
            raise PlanError(
                f"{type(optimizer).__name__} holds no parameter of the module: it is the optimizer "
                "of another one, or of copies of its weights"
            )
