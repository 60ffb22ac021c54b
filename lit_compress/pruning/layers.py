"""Select the weights to prune: conv and linear layers, by glob or regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

from torch import nn
from torch.jit import ScriptModule
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from lit_compress.errors import PatternError

PRUNABLE = (_ConvNd, nn.Linear)
#: Prefix of a pattern that is a regular expression instead of a glob.
REGEX = "regex:"


def prunable_weights(
    module: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """Return the weights of conv and linear layers by parameter name, each tensor once.

    Args:
        module: Module that contains the layers.
        include: Patterns of layers to prune: globs on layer names (``model.features.*``) or weight
            names, or ``regex:`` and a regular expression that matches a whole name. A layer is
            included if one pattern matches. Default: all conv and linear layers.
        exclude: Patterns of layers not to prune, even if ``include`` matches them. Default: none.

    Raises:
        PatternError: If a pattern matches no layer, no layer remains, or an included layer has no
            plain weight (it is lazy or parametrised).

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
        >>> list(prunable_weights(net))
        ['0.weight', '2.weight']
        >>> list(prunable_weights(net, exclude=["0"]))
        ['2.weight']
    """
    layers = prunable_layers(module)
    refuse_script(module, layers)
    selected = matching(include, layers, "include") - matching(exclude, layers, "exclude")
    weights: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, layer in layers.items():
        if name in selected:
            weight = _plain_weight(name, layer)
            if id(weight) not in seen:
                seen.add(id(weight))
                weights[weight_name(name)] = weight
    if not weights:
        raise PatternError(
            f"{type(module).__name__} has no conv or linear layer to prune with "
            f"include={list(include)} and exclude={list(exclude)}: widen include or narrow exclude"
        )
    return weights


def refuse_script(module: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Refuse a module whose layers are all inside TorchScript, where nothing can be pruned.

    Args:
        module: The module.
        layers: Its layers that are not.

    Raises:
        PatternError: If it has no other layers.
    """
    scripts = [name for name, child in module.named_modules() if isinstance(child, ScriptModule)]
    if scripts and not layers:
        raise PatternError(
            f"{type(module).__name__} has no conv or linear layer outside TorchScript: "
            f"{scripts[0] or 'it'} is a ScriptModule, which nothing can be removed from: train the "
            "module without torch.jit, and script what comes out"
        )


def plain_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of conv and linear layers by name, each tensor once.

    Layers with a lazy or parametrised weight are skipped.
    """
    weights: dict[str, nn.Parameter] = {}
    for name, layer in prunable_layers(module).items():
        weight = layer._parameters.get("weight")
        if weight is None or isinstance(weight, UninitializedParameter):
            continue
        if all(weight is not other for other in weights.values()):
            weights[weight_name(name)] = weight
    return weights


def prunable_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the conv and linear layers of a module by name."""
    return {name: child for name, child in module.named_modules() if isinstance(child, PRUNABLE)}


def layers_by_weight(module: nn.Module) -> dict[str, list[str]]:
    """Return the names of the layers that share each weight, by the weight's first name."""
    found: dict[int, tuple[str, list[str]]] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, PRUNABLE):
            weight = layer._parameters.get("weight")
            key = id(layer if weight is None else weight)
            found.setdefault(key, (weight_name(name), []))[1].append(name)
    return dict(found.values())


def weight_name(layer: str) -> str:
    """Return the name of a layer's weight."""
    return f"{layer}.weight" if layer else "weight"


def layer_name(weight: str) -> str:
    """Return the name of the layer that has a weight of this name, as messages and tables show it.

    Args:
        weight: Name of the weight; one that is not called ``weight`` stands for itself.

    Example:
        >>> layer_name("model.fc.weight"), layer_name("stem_kernel")
        ('model.fc', 'stem_kernel')
    """
    return weight.removesuffix(".weight")


def owner_of(parameter: str) -> str:
    """Return the name of the layer that a parameter belongs to, also behind a parametrisation.

    Args:
        parameter: Name of the parameter.

    Example:
        >>> owner_of("net.0.weight"), owner_of("net.0.parametrizations.weight.original1")
        ('net.0', 'net.0')
    """
    layer, _, inside = parameter.partition("parametrizations.")
    return layer.rstrip(".") if inside else parameter.rpartition(".")[0]


def matching(patterns: Iterable[str], layers: Iterable[str], argument: str) -> set[str]:
    """Return the layers whose name, or whose weight's name, matches one of the patterns.

    Args:
        patterns: Globs, or ``regex:`` and a regular expression.
        layers: Names of layers.
        argument: Name of the argument that contains the patterns, for the message.

    Raises:
        PatternError: If a pattern matches nothing.
    """
    names = list(layers)
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if matches(pattern, name)}
        if not matched:
            raise PatternError(no_match(pattern, names, argument))
        found |= matched
    return found


def matches(pattern: str, layer: str) -> bool:
    """Tell whether a glob, or a ``regex:`` pattern, matches a layer's name or its weight's name.

    Raises:
        PatternError: If the regular expression is not valid.
    """
    names = (layer, weight_name(layer))
    if pattern.startswith(REGEX):
        compiled = expression(pattern)
        return any(compiled.fullmatch(name) for name in names)
    return any(fnmatchcase(name, pattern) for name in names)


def is_plain(pattern: str) -> bool:
    """Tell whether a pattern is a name, which matches nothing else."""
    return not pattern.startswith(REGEX) and not any(sign in pattern for sign in "*?[")


@lru_cache(maxsize=1024)
def expression(pattern: str) -> re.Pattern[str]:
    """Return the compiled regular expression of a pattern that starts with ``regex:``.

    Raises:
        PatternError: If it is not valid.
    """
    try:
        return re.compile(pattern.removeprefix(REGEX))
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"{pattern!r} is not a valid regular expression: {error}") from error


def no_match(pattern: str, names: list[str], argument: str) -> str:
    """Return the error message for a pattern that matches nothing, with similar names."""
    similar = [name for name in names if fnmatchcase(name, f"*{pattern}")]
    similar = similar or get_close_matches(pattern, names, 3, 0.5) or names
    listed = ", ".join(similar[:4]) + (" ..." if len(similar) > 4 else "")
    return (
        f"{argument}: the pattern {pattern!r} matches no conv or linear layer; layer names look "
        f"like: {listed or '(the module has no conv or linear layer)'}"
    )


def _plain_weight(name: str, layer: nn.Module) -> nn.Parameter:
    weight = layer._parameters.get("weight")
    if weight is None:
        raise PatternError(
            f"layer {name!r} has a parametrised weight (weight_norm, LoRA ...), which a mask "
            "cannot keep at zero: remove the parametrisation, or exclude the layer"
        )
    if isinstance(weight, UninitializedParameter):
        raise PatternError(
            f"layer {name!r} is lazy and has no weight yet: run one batch through the module "
            "before fit, or exclude the layer"
        )
    return weight
