"""The calls of a network in a training step, and the outputs of its layers in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lit_compress.attributes import replaced_attributes


@dataclass
class NetworkCall:
    """One call of the network.

    Attributes:
        path: Name of the part of the module that was called.
        args: Its arguments, without gradients.
        kwargs: Its keyword arguments, without gradients.
        result: What it returned.
        features: By name of a layer, its output in this call.
    """

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any = None
    features: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def followed(
    module: LightningModule, paths: Sequence[str], layers: Sequence[str], calls: list[NetworkCall]
) -> Iterator[None]:
    """Record the calls of a network until the end of the block.

    Args:
        module: The user's module.
        paths: Names of the parts that may be the network; a call inside a call is not recorded.
        layers: Names of the layers whose outputs are wanted.
        calls: Gets the calls.
    """
    open_calls: list[NetworkCall] = []

    def recorder(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def record(*args: Any, **kwargs: Any) -> Any:
            if open_calls:
                return forward(*args, **kwargs)
            # A copy: a forward may write to its inputs.
            open_calls.append(NetworkCall(path, *tree_map(_copied, (args, kwargs))))
            try:
                open_calls[0].result = forward(*args, **kwargs)
                calls.append(open_calls[0])
                return open_calls[0].result
            finally:
                open_calls.clear()

        return record

    def keep(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if open_calls and isinstance(output, Tensor):
                open_calls[0].features[layer] = output

        return hook

    with ExitStack() as stack:
        for path in paths:
            part = module.get_submodule(path)
            stack.enter_context(replaced_attributes(part, forward=recorder(path, part.forward)))
        for layer in layers:
            handle = module.get_submodule(layer).register_forward_hook(keep(layer))
            stack.callback(handle.remove)
        yield


@contextmanager
def outputs_of(
    module: nn.Module, layers: Sequence[str], found: dict[str, Tensor]
) -> Iterator[None]:
    """Record the outputs of layers until the end of the block.

    Args:
        module: The module.
        layers: Names of its layers.
        found: Gets the outputs by name.
    """

    def keep(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, __, output: found.__setitem__(layer, output)

    with ExitStack() as stack:
        for layer in layers:
            handle = module.get_submodule(layer).register_forward_hook(keep(layer))
            stack.callback(handle.remove)
        yield


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
