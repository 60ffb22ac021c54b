"""Names and places of torch calls, and the layers that make them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._pytree import tree_leaves

#: Source files to skip when a reason names the line of the model's own code that made a call.
_TORCH = str(Path(torch.__file__).parent) + os.sep
_HERE = str(Path(__file__).parents[1]) + os.sep
#: Types of arguments that hold no tensor.
_PLAIN = (int, float, str, torch.dtype, torch.device, torch.Size, slice)


@contextmanager
def layer_calls(
    enter: Callable[[nn.Module, Any], None], leave: Callable[[nn.Module, Any, Any], None]
) -> Iterator[None]:
    """Call two functions before and after the forward of each layer, until the end of the block.

    Args:
        enter: Called with the layer and its arguments.
        leave: Called with the layer, its arguments and its result.
    """
    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        with warnings.catch_warnings():
            # Compiled modules run uncompiled here, so that hooks fire once.
            warnings.filterwarnings("ignore", "Using `torch.compile", UserWarning)
            yield
    finally:
        for handle in handles:
            handle.remove()


def call_name(func: Callable[..., Any]) -> str:
    """Return the name of a torch function, without the underscores of its variants."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        return f"get {getattr(getattr(func, '__self__', None), '__name__', '')}"
    return name.partition(".")[0].strip("_") or name


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors among the arguments or the results of a call, in the order of pytree."""
    if isinstance(value, Tensor):
        return [value]
    kind = type(value)
    if kind in (tuple, list):  # nearly all are these, and a walk of pytree takes far longer
        return [tensor for part in value for tensor in tensors_of(part)]
    if kind is dict:
        return [tensor for part in value.values() for tensor in tensors_of(part)]
    if value is None or isinstance(value, _PLAIN):
        return []
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def caller() -> tuple[str, int]:
    """Return the file and line of the model's own code that made the current call.

    Returns:
        An empty name and line 0 if the call does not come from the model's code.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_HERE):
            break
        if not file.startswith(_TORCH):
            return file, frame.f_lineno
        frame = frame.f_back
    return "", 0
