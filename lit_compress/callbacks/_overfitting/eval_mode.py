"""Holding dropout and batch norms as they are in evaluation, while the network trains."""

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

#: Layers that are known by their names: torchvision's and timm's, which drop paths or blocks.
DROPS = ("DropPath", "DropBlock", "DropBlock2d", "DropBlock3d", "StochasticDepth")


class EvalMode:
    """Keeps a module's dropout and batch norms in eval mode.

    Held are dropout layers of any kind, attention with dropout, batch and instance norms, and what
    the patterns name; each by its own flag, since training code may set them all at any time.

    Args:
        patterns: Globs of further modules, for dropout that is called as a function.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.patterns = list(patterns)
        self._layers: dict[str, nn.Module] = {}
        self._affine: list[nn.Parameter] = []

    def attach(self, module: nn.Module) -> None:
        """Find the layers that are training, and hold them from now on.

        Raises:
            PatternError: If a pattern names no module.
        """
        modules = dict(module.named_modules())
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in modules):
                raise PatternError(
                    f"hold: {pattern!r} matches no module of {type(module).__name__}"
                )
        self._layers = {n: m for n, m in modules.items() if m.training and self._is_held(n, m)}
        norms = [layer for layer in self._layers.values() if isinstance(layer, _NormBase)]
        self._affine = [p for norm in norms for p in norm.parameters(recurse=False)]
        self.apply()

    def apply(self) -> None:
        """Put the layers in eval mode again, whatever was done to them."""
        for layer in self._layers.values():
            layer.training = False

    def broken(self) -> str | None:
        """Return the name of a layer that is in training mode in spite of it, None if none is."""
        return next((name for name, layer in self._layers.items() if layer.training), None)

    def drop_gradients(self) -> None:
        """Leave the norms' scales and shifts out of an optimizer's step, and its state alone."""
        for parameter in self._affine:
            parameter.grad = None

    def release(self) -> None:
        """Let the layers train again."""
        for layer in self._layers.values():
            layer.training = True
        self._layers, self._affine = {}, []

    def names(self) -> list[str]:
        """Return the names of the layers that are held."""
        return list(self._layers)

    def _is_held(self, name: str, module: nn.Module) -> bool:
        if isinstance(module, (_DropoutNd, _NormBase)) or type(module).__name__ in DROPS:
            return True
        if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
            return True
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


@torch.no_grad()
def leftover(
    module: nn.Module, called: nn.Module, inputs: Inputs, patterns: Sequence[str] = ()
) -> str | None:
    """Return the innermost module that varies in training although it is held, None if none does.

    A forward is run twice in training mode: equal inputs must give equal outputs, and no buffer may
    change.

    Args:
        module: A copy that may be changed.
        called: What to run: the module, or a part of it.
        inputs: What its forward takes.
        patterns: As ``EvalMode``'s.
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
    """Return what each module was given and made of it, innermost first."""
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
