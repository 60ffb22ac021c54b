"""Runs of a network that leave it, and the random state, as they were."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_compress.measure.cost import attention_unfused, evaluating
from lit_compress.pruning.channels.tracing.calls import call_name
from lit_compress.pruning.channels.tracing.modules import named_modules, named_tensors
from lit_compress.pruning.channels.trials.outputs import Run
from lit_compress.pruning.heads import attending_by_head

#: Types of attributes whose content is restored.
CONTAINERS = (dict, list, OrderedDict)
#: The tables of a module that hold its tensors and its children, of any type of dictionary.
_TABLES = ("_parameters", "_buffers", "_modules")


def run_of(
    model: nn.Module, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Run:
    """Return a run of the model that restores its attributes and buffers each time.

    The random numbers are the same in each run.
    """

    def run() -> Any:
        with restored(model):
            _seed()
            return called(*args, **kwargs)

    return run


def training_run(
    model: nn.Module, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Run]:
    """Return a run with the model's own code in training mode, and torch's layers in eval mode.

    The list is empty if the forward fails in training mode.
    """

    def run() -> Any:
        with restored(model), evaluating(called):
            for module in called.modules():
                module.training = not type(module).__module__.startswith("torch.nn.")
            _seed()
            with _NoDropout():
                return called(*args, **kwargs)

    try:
        run()
    except Exception:  # for example, the forward needs targets in training mode
        return []
    return [run]


class _NoDropout(TorchFunctionMode):
    """Lets dropout do nothing: with fewer channels it draws other numbers."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make the call, a dropout without dropping anything."""
        kwargs = dict(kwargs or {})
        if "dropout" in call_name(func) and len(args) > 1:
            args = (args[0], 0.0, *args[2:])
        elif "dropout" in call_name(func):
            kwargs["p"] = 0.0
        elif "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


def _seed() -> None:
    if torch.accelerator.is_available():
        torch.manual_seed(0)
    else:  # that function keeps a stack trace for each kind of device, until one is used
        torch.default_generator.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Set a model to eval mode without gradients; restore it and the random state at the end."""
    tensors = list(named_tensors(model).values())
    devices = [tensor.device for tensor in tensors if tensor.is_cuda][:1]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(evaluating(model))
        stack.enter_context(attention_unfused())
        stack.enter_context(attending_by_head(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_uncompiled())
        stack.enter_context(restored(model, tensors))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        yield


@contextmanager
def restored(model: nn.Module, tensors: Iterable[Tensor] | None = None) -> Iterator[None]:
    """Restore the attributes of all modules, and the given tensors, at the end of the block.

    Lists and dictionaries among the attributes get their content back, hooks too: a model may keep
    what it computed in its first call, or register hooks then, and go another way in the second.

    Args:
        model: The model.
        tensors: The tensors. Default: the buffers.
    """
    modules = [module for _, module in named_modules(model)]
    if tensors is None:
        tensors = [held for module in modules for held in _buffers(module)]
    attributes: list[tuple[Any, Any]] = []
    empty: list[Any] = []  # nearly all containers: tables of hooks
    for module in modules:
        table = vars(module)
        attributes.append((table, table.copy()))
        for name, value in table.items():
            if type(value) in CONTAINERS or (name in _TABLES and isinstance(value, dict)):
                if value:
                    attributes.append((value, value.copy()))
                else:
                    empty.append(value)
    with torch._C.DisableTorchFunction():
        values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for container, content in attributes:
            if not _same(container, content):
                _restore_content(container, content)
        for container in empty:
            if container:
                container.clear()
        with torch._C.DisableTorchFunction():  # these calls are not the model's, so not traced
            for tensor, value in values:
                if tensor.shape != value.shape:
                    tensor.data = value
                elif not torch.equal(tensor, value):
                    tensor.copy_(value)


def _buffers(module: nn.Module) -> list[Tensor]:
    return [buffer for buffer in module._buffers.values() if buffer is not None]


def _same(container: Any, content: Any) -> bool:
    """Tell whether a list or a dictionary holds the same objects as before."""
    if isinstance(container, list):
        return len(container) == len(content) and all(map(is_, container, content))
    return container.keys() == content.keys() and all(
        map(is_, container.values(), content.values())
    )


def _restore_content(container: Any, content: Any) -> None:
    """Give a list or a dictionary the content that it had."""
    if isinstance(container, list):
        container[:] = content
    else:
        container.clear()
        container.update(content)


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled modules uncompiled, so that their calls can be traced."""
    stance = torch.compiler.set_stance("force_eager")
    with stance:
        yield
