"""What a block is worth: how much worse the network is without it, on some batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import isfinite
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_map
from typing_extensions import override

from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import check_monitor
from lit_compress.evaluation.network import record_calls
from lit_compress.evaluation.run_view.copies import in_run
from lit_compress.evaluation.validate import validate
from lit_compress.pruning.channels.trials.outputs import tensors_in


class Worth(ABC):
    """Measures how much worse a network is than it was when this was made."""

    @abstractmethod
    def loss(self) -> float:
        """Return how much worse the network is now; below 0 if it is better."""


class MetricWorth(Worth):
    """By a metric that the user's validation logs.

    Args:
        trainer: The run.
        copy: A copy of the user's module, that changes between measurements.
        key: Key of the metric.
        rises: Whether more of it is better.
        batches: Number of batches of each loader.
    """

    def __init__(
        self, trainer: Trainer, copy: LightningModule, key: str, rises: bool, batches: int
    ) -> None:
        self._trainer, self._copy, self._key, self._batches = trainer, copy, key, batches
        self._sign = 1 if rises else -1
        self._before = self._measured()

    @override
    def loss(self) -> float:
        lost = (self._before - self._measured()) * self._sign
        return lost if isfinite(lost) else float("inf")

    def _measured(self) -> float:
        loaders = validation_loaders(self._trainer)
        metrics = validate(self._trainer, self._copy, loaders, self._batches)
        check_monitor(self._key, metrics)
        return metrics[self._key]


class OutputWorth(Worth):
    """By the outputs of the network: their squared difference, relative to their square.

    Args:
        trainer: The run.
        copy: A copy of the user's module, that changes between measurements.
        path: Name of the network in it; empty for the module itself.
        batches: Number of batches.

    Raises:
        InvalidArgumentError: If no step of the user's calls the network.
    """

    def __init__(self, trainer: Trainer, copy: LightningModule, path: str, batches: int) -> None:
        self._trainer, self._copy, self._path = trainer, copy, path
        loaders = validation_loaders(trainer)
        found = record_calls(trainer, copy, loaders, [path], batches, _kept)
        self._calls = found.get(path, [])
        if not self._calls:
            raise InvalidArgumentError(
                f"no step calls {path or 'the forward'} of {type(copy).__name__}, so what its "
                "blocks are worth cannot be measured: name the network by submodule, or set "
                "rank_by to a key that validation_step logs"
            )
        self._before = self._outputs()

    @override
    def loss(self) -> float:
        changed, size = 0.0, 0.0
        for expected, outputs in zip(self._before, self._outputs(), strict=True):
            for one, other in zip(expected, outputs, strict=True):
                changed += float((one - other).square().sum())
                size += float(one.square().sum())
        found = changed / max(size, 1e-30)
        return found if isfinite(found) else float("inf")

    def _outputs(self) -> list[list[Tensor]]:
        network = self._copy.get_submodule(self._path).eval()
        found = []
        with in_run(self._trainer, self._copy), torch.no_grad():
            for args, kwargs in self._calls:
                with self._trainer.precision_plugin.forward_context():
                    outputs = tensors_in(network(*_copied(args), **_copied(kwargs)))
                found.append([t.double() for t in outputs if t.is_floating_point()])
        return found


def _kept(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return _copied(args), _copied(kwargs)


def _copied(values: Any) -> Any:
    return tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, values)
