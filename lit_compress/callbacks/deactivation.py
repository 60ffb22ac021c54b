"""Holding dropout and batch norms as they are in evaluation, while the network trains."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from lit_compress.errors import PatternError
from lit_compress.measure.cost import Inputs, forward_arguments

#: Layers that are known by their names: torchvision's and timm's drop whole paths or blocks.
DROPS = ("Drop", "StochasticDepth")

Outputs = list[tuple[str, list[Tensor]]]


class Deactivation:
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
                raise PatternError(f"hold: {pattern!r} matches no module of {type(module).__name__}")
        self._layers = {n: m for n, m in modules.items() if m.training and self._is_held(n, m)}
        norms = [layer for layer in self._layers.values() if isinstance(layer, _NormBase)]
        self._affine = [p for norm in norms for p in norm.parameters(recurse=False)]
        self.apply()

    def apply(self) -> None:
        """Put the layers in eval mode again, whatever was done to them."""
        for layer in self._layers.values():
            layer.training = False

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
        if isinstance(module, (_DropoutNd, _NormBase)) or type(module).__name__.startswith(DROPS):
            return True
        if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
            return True
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


@torch.no_grad()
def leftover(
    module: nn.Module, called: nn.Module, inputs: Inputs, patterns: Sequence[str] = ()
) -> str | None:
    """Return the innermost module that varies in training although it is held, None if none does.

    A forward is run twice in training mode: outputs must agree, and no buffer may change.

    Args:
        module: A copy that may be changed.
        called: What to run: the module, or a part of it.
        inputs: What its forward takes.
        patterns: As ``Deactivation``'s.
    """
    module.train()
    Deactivation(patterns).attach(module)
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    torch.manual_seed(0)
    first, second = (_outputs(module, called, inputs) for _ in range(2))
    for (name, a), (_, b) in zip(first, second, strict=False):
        if not all(torch.equal(x, y) for x, y in zip(a, b, strict=False)):
            return name
    for name, buffer in module.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            return name.rpartition(".")[0]
    return None


def _outputs(module: nn.Module, called: nn.Module, inputs: Inputs) -> Outputs:
    """Return what each module puts out, innermost first."""
    seen: Outputs = []

    def recorder(name: str) -> object:
        def record(_: nn.Module, args: object, output: object) -> None:
            leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            seen.append((name, [leaf.detach().clone().nan_to_num() for leaf in leaves]))

        return record

    handles = [
        child.register_forward_hook(recorder(name))  # type: ignore[arg-type]
        for name, child in module.named_modules()
    ]
    try:
        args, kwargs = forward_arguments(inputs)
        called(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen
