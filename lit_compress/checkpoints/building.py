"""Build a module from a file, and change a module only if all of a file is right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from lit_compress.errors import CheckpointError
from lit_compress.pruning.channels.surgery import swap_data
from lit_compress.pruning.channels.tracing.modules import named_tensors

#: Elements that any module may make a tensor of: a GiB of float32.
USUAL = 1 << 28
#: How many times larger than the largest tensor of a file a tensor of its module may be.
SPARE = 4
#: Functions that make a tensor of a given size.
MAKERS = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.normal}
)


class Bounded(TorchFunctionMode):
    """Refuses tensors that are far larger than those of a file, before their memory is taken.

    A hyperparameter of a damaged file, such as ``num_classes``, can ask for any size.

    Args:
        sizes: Numbers of elements of the tensors in the file.
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        super().__init__()
        self._most = max(USUAL, SPARE * max(sizes, default=0))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch, unless it makes a tensor that is too large."""
        if func in MAKERS:
            count = _elements(args, kwargs or {})
            if count > self._most:
                raise CheckpointError(
                    f"the hyperparameters in the file ask for a tensor of {count:,} elements, and "
                    "its own are far smaller: the file is damaged, load another one"
                )
        return func(*args, **(kwargs or {}))


@contextmanager
def unchanged_on_error(module: nn.Module) -> Iterator[None]:
    """Put a module back as it was if the block raises.

    Args:
        module: The module: its tensors and the attributes of all its parts are put back.
    """
    tensors = [tensor for tensor in named_tensors(module).values() if not is_lazy(tensor)]
    values = [tensor.detach().clone() for tensor in tensors]
    attributes = [(part, _copied(vars(part))) for part in module.modules()]
    try:
        yield
    except BaseException:
        for part, before in attributes:
            vars(part).clear()
            vars(part).update(before)
        for tensor, value in zip(tensors, values, strict=True):
            if tensor.shape != value.shape:
                swap_data(tensor, value)
            else:
                tensor.data.copy_(value)
        raise


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes of a module, with copies of the tables of its parts."""
    return {n: v.copy() if type(v) is dict and n[:1] == "_" else v for n, v in attributes.items()}


def _elements(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return how many elements the arguments of torch.empty and the like ask for."""
    size = kwargs.get("size", args[0] if args and not isinstance(args[0], (int, Tensor)) else args)
    found = [one for one in size if isinstance(one, int)] if isinstance(size, (tuple, list)) else []
    return math.prod(found) if found else 0
