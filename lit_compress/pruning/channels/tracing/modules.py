"""The modules and tensors of a network, listed in less time than torch's generators take."""

from __future__ import annotations

from torch import Tensor, nn


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return what ``model.named_modules()`` yields: each module once, by its first name.

    An analysis lists the modules some thirty times, and each level of torch's generator passes on
    all that is below it.
    """
    found: dict[nn.Module, str] = {}
    if not _listed(model, "", found):
        return list(model.named_modules())
    return [(name, module) for module, name in found.items()]


def _listed(module: nn.Module, name: str, found: dict[nn.Module, str]) -> bool:
    """List a module and those below it; tell whether all have torch's own ``named_modules``."""
    if type(module).named_modules is not nn.Module.named_modules:
        return False
    found[module] = name
    prefix = f"{name}." if name else ""
    for key, child in module._modules.items():
        if child is not None and child not in found and not _listed(child, prefix + key, found):
            return False
    return True


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters and buffers, each tensor once, by its first name."""
    kind = type(model)
    if (kind.named_parameters, kind.named_buffers) != (
        nn.Module.named_parameters,
        nn.Module.named_buffers,
    ):
        return {**dict(model.named_parameters()), **dict(model.named_buffers())}
    modules = [(f"{path}." if path else "", module) for path, module in named_modules(model)]
    found: dict[str, Tensor] = {}
    for attribute in ("_parameters", "_buffers"):
        seen: set[int] = set()
        for prefix, module in modules:
            for name, tensor in getattr(module, attribute).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[prefix + name] = tensor
    return found


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """Return a module by its name, without listing all others; None if there is none.

    Args:
        model: The model.
        path: The name, as in ``model.named_modules()``; empty for the model.
    """
    found: nn.Module | None = model
    for part in path.split(".") if path else ():
        found = found._modules.get(part) if found is not None else None
    return found
