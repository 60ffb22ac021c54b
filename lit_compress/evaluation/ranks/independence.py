"""Whether steps of validation depend on each other, so that one process must run them all."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric, MetricCollection, SumMetric

from lit_compress.attributes import replaced_attributes

#: Objects of a run, which are not looked into.
OUTSIDE = (Trainer, Strategy, Callback, LightningDataModule, DataLoader, Dataset, Logger, type)
#: Attributes of the libraries' own, by class of the module.
LIBRARY = {
    LightningModule: frozenset(vars(LightningModule())),
    Metric: frozenset(vars(SumMetric())),
    nn.Module: frozenset(vars(nn.Module())),
}
#: Largest number of values that are looked at in a module, and the depth of the objects.
MOST, DEEPEST = 100_000, 6
#: Largest array that is compared by its numbers, in bytes.
LARGEST = 1 << 24


class Watch:
    """Sees what steps leave behind in a module, which later steps or hooks could read.

    Args:
        module: The copy of the user's module that the steps are of.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._metrics = [child for child in module.modules() if isinstance(child, Metric)]
        self._before: Attributes | None = None
        self._random: tuple[int, tuple[Any, ...]] | None = None
        self._why: str | None = None

    @contextmanager
    def step(self, loader: int) -> Iterator[None]:
        """Watch a step.

        Args:
            loader: Number of the loader; random numbers that are drawn between the loaders are
                those of their workers.
        """
        if self._before is None:
            self._before = Attributes(self._module)
        now = random_state()
        if self._random is None or self._random[0] != loader:
            self._random = (loader, now)
        with self._computing():
            yield
        if self._why is None and self._random[1] != random_state():
            self._why = "validation draws random numbers"

    def why(self) -> str | None:
        """Return why the steps could depend on each other; None if they do not."""
        if self._why is None and self._before is not None:
            changed = self._before.changed()
            if changed is not None:
                self._why = f"validation_step changes {changed} of the module"
        return self._why

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Notice the result of a metric over the batches so far, which one process alone knows."""
        depth = 0

        def inside(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                return forward(*args, **kwargs)
            finally:
                depth -= 1

        def noticed(compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if not depth:
                self._why = "validation_step computes a metric over the batches so far"
            return compute(*args, **kwargs)

        with ExitStack() as stack:
            for child in self._metrics:
                own, compute = partial(inside, child.forward), partial(noticed, child.compute)
                stack.enter_context(replaced_attributes(child, forward=own, compute=compute))
            yield


def random_state() -> tuple[Any, ...]:
    """Return the state of the generators of random numbers, to be compared."""
    kind, keys, *rest = np.random.get_state()
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(torch.cuda.get_rng_state())
    return (
        *(state.numpy().tobytes() for state in states),
        (kind, np.asarray(keys).tobytes(), *rest),
        random.getstate(),
    )


class Attributes:
    """What can change in a module without a new weight or a metric's state, as it is now.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        # Its values are kept, so that no other object gets their address.
        self._look = _Look({id(child) for child in module.modules()})
        self._found = dict(_looked_at(module, self._look))

    def changed(self) -> str | None:
        """Return the name of an attribute that is another one now; None if there is none."""
        after = dict(_looked_at(self._module, _Look(self._look.known)))
        names = {**self._found, **after}
        return next((n for n in names if self._found.get(n) != after.get(n)), None)


def _looked_at(module: nn.Module, look: _Look) -> Iterator[tuple[str, Any]]:
    for path, child in module.named_modules():
        if isinstance(child, MetricCollection):
            continue
        library = {n for kind, own in LIBRARY.items() if isinstance(child, kind) for n in own}
        if isinstance(child, Metric):
            library |= child._defaults.keys()
        for name, value in {**vars(child), **child._parameters, **child._buffers}.items():
            if name not in library:
                yield f"{path}.{name}".lstrip("."), look.at(value)


class _Look:
    """Turns values into plain ones that are equal if nothing was changed in the values."""

    def __init__(self, known: Set[int]) -> None:
        self.known, self._left = known, MOST
        self._kept: list[Any] = []

    def at(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return (type(value).__name__, repr(value))
        self._kept.append(value)
        if isinstance(value, Tensor):
            return (id(value), value._version)
        if isinstance(value, np.ndarray) and value.nbytes <= LARGEST and value.dtype != object:
            return (value.shape, value.tobytes())
        if id(value) in self.known or isinstance(value, OUTSIDE) or self._left < 0:
            return id(value)
        return (id(value), *self._inside(value, depth + 1)) if depth < DEEPEST else id(value)

    def _inside(self, value: Any, depth: int) -> Iterator[Any]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield (self.at(key, depth), self.at(item, depth))
        elif isinstance(value, (Sequence, Set)) or type(value).__name__ == "deque":
            for item in value:
                yield self.at(item, depth)
        for name, item in getattr(value, "__dict__", {}).items():
            yield (name, self.at(item, depth))
