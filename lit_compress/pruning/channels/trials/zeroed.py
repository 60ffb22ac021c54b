"""A run in which layers read zeros in the place of channels that a plan removes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.channels.plan import Plan
from lit_compress.pruning.channels.trace import named_tensors

#: Operations whose input has its channels in the last dimension.
PRODUCTS = ("linear", "matmul", "mm", "addmm")


class ZeroedInputs(TorchFunctionMode):
    """Replaces by zeros the inputs that layers read from channels that a plan removes.

    It zeroes the activation and not the weight, which can be a thousand times larger.

    Args:
        model: The model that runs.
        graph: Channels of the model.
        plan: The channels to remove.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, plan: Plan) -> None:
        super().__init__()
        tensors = named_tensors(model)
        self._removed = {
            id(tensors[cut.tensor]): (cut.size, np.setdiff1d(np.arange(cut.size), cut.keep))
            for cut in plan.cuts
            if graph.roles[cut.tensor, cut.dim] == "input"
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, with zeros in the removed channels of its input."""
        kwargs = kwargs or {}
        first = 1 if func.__name__ == "addmm" else 0  # its bias comes before the input
        weight = args[first + 1] if len(args) > first + 1 else kwargs.get("weight")
        if isinstance(weight, Tensor) and id(weight) in self._removed:
            image = args[first] if args else kwargs["input"]
            image = self._zeroed(image, weight, linear=func.__name__ in PRODUCTS)
            args, kwargs = (
                ((*args[:first], image, *args[first + 1 :]), kwargs)
                if args
                else ((), {**kwargs, "input": image})
            )
        return func(*args, **kwargs)

    def _zeroed(self, image: Tensor, weight: Tensor, linear: bool) -> Tensor:
        size, removed = self._removed[id(weight)]
        dim = image.dim() - 1 if linear else image.dim() - weight.dim() + 1
        groups = image.shape[dim] // size
        indices = (removed[None] + size * np.arange(groups)[:, None]).ravel()
        return image.index_fill(dim, torch.from_numpy(indices).to(image.device), 0)
