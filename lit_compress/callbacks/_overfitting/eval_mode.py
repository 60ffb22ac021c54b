"""Keeping dropout and batch norms in eval mode while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from lit_compress.errors import PatternError
from lit_compress.measure.cost import Inputs, forward_arguments

#: Names of the layers of torchvision and timm that drop paths or blocks.
DROPS = ("DropPath", "DropBlock", "DropBlock2d", "DropBlock3d", "StochasticDepth")


class EvalMode:
    """Keeps a module's dropout and batch norms in eval mode.

    These are dropout layers of any kind, attention with dropout, batch and instance norms, and the
    modules that match the patterns. Each one's own flag is set, since training code may set the
    flags of all modules at any time.

    Args:
        patterns: Globs of other modules, for dropout that is called as a function.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.patterns = list(patterns)
        self._layers: dict[str, nn.Module] = {}
        self._affine: list[nn.Parameter] = []

    def attach(self, module: nn.Module) -> None:
        """Find the layers in training mode, and keep them in eval mode from now on.

        Raises:
            PatternError: If a pattern matches no module.
        """
        modules = dict(module.named_modules())
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in modules):
                raise PatternError(
                    f"hold: {pattern!r} matches no module of {type(module).__name__}"
                )
        self._layers = {n: m for n, m in modules.items() if m.training and self._is_affected(n, m)}
        norms = [layer for layer in self._layers.values() if isinstance(layer, _NormBase)]
        self._affine = [p for norm in norms for p in norm.parameters(recurse=False)]
        self.apply()

    def apply(self) -> None:
        """Set the layers to eval mode again."""
        for layer in self._layers.values():
            layer.training = False

    def broken(self) -> str | None:
        """Return the name of a layer that was set to training mode, None if none was."""
        return next((name for name, layer in self._layers.items() if layer.training), None)

    def drop_gradients(self) -> None:
        """Drop the gradients of the norms' scales and shifts, so that optimizers skip them."""
        for parameter in self._affine:
            parameter.grad = None

    def release(self) -> None:
        """Set the layers to training mode again."""
        for layer in self._layers.values():
            layer.training = True
        self._layers, self._affine = {}, []

    def names(self) -> list[str]:
        """Return the names of the layers."""
        return list(self._layers)

    def _is_affected(self, name: str, module: nn.Module) -> bool:
        if isinstance(module, (_DropoutNd, _NormBase)) or type(module).__name__ in DROPS:
            return True
        if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
            return True
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


@torch.no_grad()
def still_random(
    module: nn.Module, called: nn.Module, inputs: Inputs, patterns: Sequence[str] = ()
) -> str | None:
    """Return the innermost module that is still random in training, None if none is.

    The forward runs twice in training mode: equal inputs must give equal outputs, and no buffer may
    change.

    Args:
        module: A copy of the user's module; it is changed.
        called: The part of it whose forward runs.
        inputs: Inputs of that forward.
        patterns: Globs, as for :class:`EvalMode`.
    """
    module.train()
    EvalMode(patterns).attach(module)
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    torch.manual_seed(0)
    first, second = (_calls(module, called, inputs) for _ in range(2))
    for a, b in zip(first, second, strict=False):
        if _equal(a.given, b.given) and not _equal(a.made, b.made):
            return a.name
    for name, buffer in module.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            return name.rpartition(".")[0]
    return None


class _Call(NamedTuple):
    name: str
    given: list[Tensor]
    made: list[Tensor]


def _calls(module: nn.Module, called: nn.Module, inputs: Inputs) -> list[_Call]:
    """Return the inputs and outputs of each module, the innermost first."""
    seen: list[_Call] = []

    def recorder(name: str) -> Callable[..., None]:
        def record(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            seen.append(_Call(name, _tensors((args, kwargs)), _tensors(output)))

        return record

    handles = [
        child.register_forward_hook(recorder(name), with_kwargs=True)
        for name, child in module.named_modules()
    ]
    try:
        args, kwargs = forward_arguments(inputs)
        called(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _tensors(values: Any) -> list[Tensor]:
    return [leaf.clone().nan_to_num() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))
