"""Watching the validations of a run: the metrics of the last one are those of its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from math import isfinite
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lit_compress.artifact import Metric
from lit_compress.evaluation.last_validation.fingerprint import fingerprint
from lit_compress.evaluation.last_validation.input_sums import InputSums
from lit_compress.evaluation.last_validation.same_data import batches_in_common
from lit_compress.evaluation.metric import accuracy_interval
from lit_compress.evaluation.network import network_paths
from lit_compress.measure.confusion import Confusion

#: The hooks in which a key is logged once for each batch.
EACH_BATCH = ("validation_step", "on_validation_batch_end")


@dataclass(frozen=True)
class Logged:
    """A metric that a validation of the run logged.

    Attributes:
        metric: The metric.
        inputs: What the network took in that validation.
    """

    metric: Metric
    inputs: InputSums


@dataclass
class _Calls:
    """The calls of a part of the module: what it took, and what it answered.

    Attributes:
        images: By number of the batch, the images of the first call: a step may call it again.
        inputs: What it took in these calls.
        confusion: Counts the answers.
        plain: Whether it computed as its class says, and not as a callback had it compute.
    """

    images: dict[int, int] = field(default_factory=dict)
    inputs: InputSums = field(default_factory=InputSums)
    confusion: Confusion = field(default_factory=Confusion)
    plain: bool = True


class LastValidation:
    """The last validation of a run, as a measurement of the network that it ran.

    Callbacks call its methods in the hooks of the validation. The user's module has forward hooks
    only while a step runs.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with no validation."""
        self._calls: dict[str, _Calls] = {}
        self._values: dict[str, float] = {}
        self._weights: bytes | None = None
        self._batches = 0
        self._logged: dict[str, int] = {}
        self._stops: list[Callable[[], None]] = []

    def begin(self, trainer: Trainer, module: LightningModule, submodule: str | None) -> None:
        """Watch the validation that begins, unless it is the check before the training.

        Args:
            trainer: The run.
            module: The user's module.
            submodule: Name of the part that is the network; None if any may be.
        """
        if trainer.sanity_checking:
            return
        self.forget()
        if trainer.world_size > 1 or _is_compiled(module) or _takes_iterator(module):
            return
        self._calls = {path: _Calls() for path in network_paths(module, submodule)}
        self._logged = _log_counts(trainer)

    def batch_starts(self, module: LightningModule, batch: Any) -> None:
        """Watch the step that begins.

        Args:
            module: The user's module.
            batch: What the step gets.
        """
        self._batches += 1
        for path, calls in self._calls.items():
            count = self._counting(module, batch, calls)
            hook = module.get_submodule(path).register_forward_hook(count, with_kwargs=True)
            self._stops.append(hook.remove)

    def batch_ends(self) -> None:
        """Take the hooks from the module, after a step or where one failed."""
        for stop in self._stops:
            stop()
        self._stops = []

    def end(self, trainer: Trainer) -> None:
        """Keep what was logged.

        Args:
            trainer: The run.
        """
        if trainer.sanity_checking:
            return
        counts, found = _log_counts(trainer), trainer.callback_metrics
        for result in (trainer._results or {}).values():
            key, name = f"{result.meta.fx}.{result.meta.name}", result.meta.name
            new = counts[key] - self._logged.get(key, 0)
            if name in found and new == (self._batches if result.meta.fx in EACH_BATCH else 1):
                self._values[name] = float(found[name])

    def metrics(
        self, trainer: Trainer, module: LightningModule, monitor: str | None
    ) -> dict[str, Logged]:
        """Return a metric as the last validation has measured it.

        Args:
            trainer: The run.
            module: The user's module or a copy of it.
            monitor: Key of the metric.

        Returns:
            By the name of the part that may be the network, its metric. Empty if the validation was
            of another network or other data than a measurement of the module would be, did not log
            the key for each batch, or was not watched.
        """
        value = self._values.get(monitor or "")
        if monitor is None or value is None or not isfinite(value):
            return {}
        if self._batches != batches_in_common(trainer) or self._weights is None:
            return {}
        if self._weights != fingerprint(module):
            return {}
        return {
            path: Logged(_metric(monitor, value, calls), calls.inputs)
            for path, calls in self._calls.items()
            if calls.images and calls.plain
        }

    def had_inputs(self, path: str, inputs: InputSums) -> bool:
        """Tell whether a network took these inputs in the last validation.

        Args:
            path: The name of the part that is the network.
            inputs: The inputs.
        """
        return path in self._calls and self._calls[path].inputs.equal(inputs)

    def _counting(self, module: LightningModule, batch: Any, calls: _Calls) -> Callable[..., None]:
        def count(part: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
            if self._batches in calls.images:
                return
            if not calls.images:
                # Here, since callbacks may put averaged weights in for the validation.
                self._weights = fingerprint(module)
                calls.plain = not any("forward" in vars(child) for child in part.modules())
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            calls.images[self._batches] = len(inputs[0]) if inputs else 0
            calls.inputs.add(inputs)
            calls.confusion.add(batch, outputs)

        return count


def _metric(monitor: str, value: float, calls: _Calls) -> Metric:
    count = sum(calls.images.values())
    interval = accuracy_interval(monitor, value, count)
    return Metric(monitor, value, "val", count, interval, calls.confusion.table)


def _log_counts(trainer: Trainer) -> dict[str, int]:
    """Return how often each key was logged so far, by the name of its hook and its own."""
    results = (trainer._results or {}).values()
    return {f"{r.meta.fx}.{r.meta.name}": r.update_count for r in results}


def _is_compiled(module: LightningModule) -> bool:
    """Tell whether torch.compile has a part of it, which hooks would compile again."""
    if getattr(module, "_compiler_ctx", None) is not None:
        return True
    return any(hasattr(child, "_orig_mod") for child in module.modules())


def _takes_iterator(module: LightningModule) -> bool:
    """Tell whether its step takes the batches by itself."""
    return "dataloader_iter" in signature(module.validation_step).parameters
