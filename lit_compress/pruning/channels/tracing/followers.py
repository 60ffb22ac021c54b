"""Parts that follow another part: averages of the weights, momentum encoders, mean teachers.

A follower is never trained; after each step the user's code moves it towards the part that it
follows. Both must lose the same channels, or the code would mix the weights of different filters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import nn

from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.tracing.modules import named_tensors
from lit_compress.pruning.channels.tracing.records import Use
from lit_compress.pruning.channels.tracing.trace import Trace


def alike(module: nn.Module, trained: Collection[int]) -> list[tuple[str, list[str]]]:
    """Return the parts that may follow another: not trained, and built as one that is.

    Args:
        module: The module.
        trained: Identities (``id``) of the parameters that optimizers change.

    Returns:
        By name, the largest such parts, each with the names of the parts that it may follow.
    """
    parts = {name: part for name, part in module.named_modules() if name}
    shapes = {name: _shapes(part) for name, part in parts.items()}
    found: list[tuple[str, list[str]]] = []
    for name, part in parts.items():
        if any(_inside(name, other) for other, _ in found) or _is_trained(part, trained):
            continue
        models = [
            other
            for other, candidate in parts.items()
            if type(candidate) is type(part)
            and shapes[name]
            and shapes[other] == shapes[name]
            and _is_trained(candidate, trained)
        ]
        if models:
            found.append((name, models))
    return found


def tie_followers(trace: Trace, model: nn.Module, followers: Mapping[str, str]) -> None:
    """Give followers the channels of the parts that they follow.

    Args:
        trace: A finished trace.
        model: The model.
        followers: By name of a follower, the name of the part that it follows.
    """
    uses = trace.recording.uses
    for follower, followed in followers.items():
        names = _tensors(trace, model, follower, followed)
        for (name, _), use in list(uses.items()):
            if name in names:
                _tie(trace, names[name], use)
        for (name, dim), use in list(uses.items()):
            source = _swapped(name, follower, followed)
            if source is None:
                continue
            if (source, dim) not in uses:
                why = f"follows {source}, whose channels could not be followed"
                trace.labels.freeze(use.labels, Reason(why))
            if use.role != "input":  # an input that runs is compared in trials
                uses[name, dim] = replace(use, role="copy")
        for width, labels in list(trace.recording.widths.items()):
            copy = _swapped(width, followed, follower)
            if copy is not None:
                trace.recording.widths.setdefault(copy, labels)


def _tensors(trace: Trace, model: nn.Module, follower: str, followed: str) -> dict[str, str]:
    """Return the names of the tensors of a part, with those of its follower's tensors."""
    names = named_tensors(model.get_submodule(followed))
    pairs = {f"{followed}.{name}": f"{follower}.{name}" for name in names}
    return {name: copy for name, copy in pairs.items() if copy in trace.tensors}


def _tie(trace: Trace, copy: str, use: Use) -> None:
    own = trace.recording.uses.get((copy, use.dim))
    if own is None:
        trace.recording.uses[copy, use.dim] = Use(copy, use.dim, use.labels, "copy")
    else:
        trace.labels.tie(own.labels, use.labels, Reason(f"follows {use.tensor}"))
    trace.recording.seen.add(copy)


def _swapped(name: str, part: str, other: str) -> str | None:
    """Return a name within a part as it is within another part; None if it is not within it."""
    return f"{other}{name.removeprefix(part)}" if _inside(name, part) else None


def _shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a part by name; nothing if it has no parameters."""
    if next(part.parameters(), None) is None:
        return {}
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(part).items()}


def _is_trained(part: nn.Module, trained: Collection[int]) -> bool:
    return any(id(parameter) in trained for parameter in part.parameters())


def _inside(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
