"""Which weights of a module are pruned: conv and linear layers, picked by glob."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from lit_compress.errors import PatternError

PRUNABLE = (_ConvNd, nn.Linear)
#: What a pattern starts with that is no glob.
REGEX = "regex:"


def prunable_weights(
    module: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """Return the weights of conv and linear layers by parameter name, each tensor once.

    Args:
        module: Where to look.
        include: Globs on layer names (``model.features.*``) or weight names, or ``regex:`` and a
            regular expression of a whole name; a layer is taken when any matches.
        exclude: Patterns whose layers are left out again.

    Raises:
        PatternError: If a pattern matches no layer, nothing is left, or a picked layer has no plain
            weight (lazy or parametrised).
    """
    layers = prunable_layers(module)
    picked = matching(include, layers, "include") - matching(exclude, layers, "exclude")
    weights: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, layer in layers.items():
        if name in picked:
            weight = _plain_weight(name, layer)
            if id(weight) not in seen:
                seen.add(id(weight))
                weights[_weight_name(name)] = weight
    if not weights:
        raise PatternError(
            f"no conv or linear layer is left to prune in {type(module).__name__} with "
            f"include={list(include)} and exclude={list(exclude)}: widen include or narrow exclude"
        )
    return weights


def plain_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all conv and linear layers that have a plain one, each tensor once."""
    weights: dict[str, nn.Parameter] = {}
    for name, layer in prunable_layers(module).items():
        weight = layer._parameters.get("weight")
        new = weight is not None and all(weight is not other for other in weights.values())
        if weight is not None and new and not isinstance(weight, UninitializedParameter):
            weights[_weight_name(name)] = weight
    return weights


def prunable_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return a module's conv and linear layers by name."""
    return {name: child for name, child in module.named_modules() if isinstance(child, PRUNABLE)}


def layers_by_weight(module: nn.Module) -> dict[str, list[str]]:
    """Return the conv and linear layers that hold each weight, by the weight's first name."""
    found: dict[int, tuple[str, list[str]]] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, PRUNABLE):
            weight = layer._parameters.get("weight")
            key = id(layer if weight is None else weight)
            found.setdefault(key, (_weight_name(name), []))[1].append(name)
    return dict(found.values())


def _weight_name(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"


def matching(patterns: Iterable[str], layers: Iterable[str], argument: str) -> set[str]:
    """Return the layers whose name, or whose weight's name, matches one of the globs.

    Args:
        patterns: The globs.
        layers: Names of layers.
        argument: What the patterns were given as, for the message.

    Raises:
        PatternError: If a pattern matches nothing.
    """
    names = list(layers)
    found: set[str] = set()
    for pattern in patterns:
        hits = set(_hits(pattern, names))
        if not hits:
            raise PatternError(no_match(pattern, names, argument))
        found |= hits
    return found


def _hits(pattern: str, names: list[str]) -> Iterator[str]:
    for name in names:
        if matches(pattern, name):
            yield name


def matches(pattern: str, layer: str) -> bool:
    """Tell whether a glob, or an expression after ``regex:``, matches a layer or its weight.

    Raises:
        PatternError: If the expression is none.
    """
    names = (layer, _weight_name(layer))
    if pattern.startswith(REGEX):
        found = expression(pattern)
        return any(found.fullmatch(name) for name in names)
    return any(fnmatchcase(name, pattern) for name in names)


@lru_cache(maxsize=1024)
def expression(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern that starts with ``regex:``.

    Raises:
        PatternError: If it is none.
    """
    try:
        return re.compile(pattern.removeprefix(REGEX))
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"{pattern!r} is no regular expression: {error}") from error


def no_match(pattern: str, names: list[str], argument: str) -> str:
    """Return the message for a pattern that matches nothing, with names that are near."""
    near = [name for name in names if fnmatchcase(name, f"*{pattern}")]
    near = near or get_close_matches(pattern, names, 3, 0.5) or names
    shown = ", ".join(near[:4]) + (" ..." if len(near) > 4 else "")
    return (
        f"{argument}: the pattern {pattern!r} matches no conv or linear layer; layer names look "
        f"like: {shown or '(the module has no conv or linear layer)'}"
    )


def _plain_weight(name: str, layer: nn.Module) -> nn.Parameter:
    weight = layer._parameters.get("weight")
    if weight is None:
        raise PatternError(
            f"layer {name!r} has a parametrised weight (weight_norm, LoRA ...), which a mask "
            "cannot hold at zero: remove the parametrisation, or exclude the layer"
        )
    if isinstance(weight, UninitializedParameter):
        raise PatternError(
            f"layer {name!r} is lazy and has no weight yet: run one batch through the module "
            "before fit, or exclude the layer"
        )
    return weight
