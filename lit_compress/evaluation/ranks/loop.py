"""A loop of validation over a part of the batches, whose results are joined with those of others.

What a step logs is kept with the number of its batch. The first process then logs it all, batch by
batch, as if it had run each step itself: a mean over batches is the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.data import extract_batch_size
from torch import nn
from torchmetrics import Metric
from typing_extensions import override

from lit_compress.evaluation.loaders import length
from lit_compress.evaluation.ranks.independence import Watch
from lit_compress.evaluation.ranks.metric_states import (
    MetricState,
    join_states,
    take_states,
    why_not_joined,
)
from lit_compress.evaluation.ranks.shares import Share, share_of
from lit_compress.evaluation.validate import Loop, Position, Results, batch_count

#: Hooks that are called for a batch, and what they log is of that batch.
OF_BATCH = ("validation_step", "on_validation_batch_start", "on_validation_batch_end")


@dataclass(frozen=True)
class Logged:
    """A value that was logged for a batch.

    Attributes:
        loader: Number of the loader.
        batch: Number of the batch in it.
        fx: The hook.
        name: The key.
        value: The value, or the name of the metric of torchmetrics that was logged.
        options: The options of ``self.log``.
    """

    loader: int
    batch: int
    fx: str
    name: str
    value: Any
    options: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What a process found on its batches.

    Attributes:
        counts: Number of batches of each loader that all processes read together.
        logs: What was logged.
        states: States of the metrics of torchmetrics, by name.
        why: Why validation cannot be shared; None if it can.
    """

    counts: tuple[int, ...]
    logs: tuple[Logged, ...]
    states: dict[str, MetricState]
    why: str | None


class CannotShareError(Exception):
    """Validation must run in one process, for the reason in the message; never seen by a user."""


class _Recorded(Results):
    """Keeps what is logged for batches."""

    def __init__(self, position: Position) -> None:
        super().__init__(position)
        self.logs: list[Logged] = []
        self.records, self.why = True, ""

    @override
    def log(self, fx: str, name: str, value: Any, **options: Any) -> None:
        if not self.records or fx not in OF_BATCH:
            super().log(fx, name, value, **options)
            return
        # The processes are told apart no more, so there is nothing to reduce over them.
        kept = {key: item for key, item in options.items() if not key.startswith("sync_dist")}
        reduce = kept.get("reduce_fx", "mean")
        kept["reduce_fx"] = reduce if isinstance(reduce, str) else reduce.__name__
        if isinstance(value, Metric):
            if kept.get("on_step"):
                self.why = f"{name}, a metric of torchmetrics, is logged at each step"
            value = kept["metric_attribute"]
        else:
            value = value.detach().cpu()
            kept["batch_size"] = self._size(kept)
        at = (self.position.loader, self.position.batch - 1)
        self.logs.append(Logged(*at, fx, name, value, kept))

    def _size(self, options: dict[str, Any]) -> int | None:
        """Return the number of examples of the batch, where it counts."""
        size = options.get("batch_size")
        if size is not None or options["reduce_fx"] not in ("mean", "avg"):
            return size
        if self.batch_size is None and options.get("on_epoch") and self.batch is not None:
            self.batch_size = extract_batch_size(self.batch)
        return self.batch_size


class ShareLoop(Loop):
    """Validates on the batches of one process.

    Args:
        loaders: The loaders of all batches.
        position: Says which batch it is at.
        share: The batches of this process.
        module: The module that is validated.
        collect: In the first process, gives the own part, and returns the parts of all; None in the
            others.
    """

    def __init__(
        self,
        loaders: Sequence[Any],
        position: Position,
        share: Share,
        module: nn.Module,
        collect: Callable[[Part], list[Part]] | None = None,
    ) -> None:
        super().__init__(list(loaders), position)
        self._whole, self._share, self._module = loaders, share, module
        self._collect, self._watch = collect, Watch(module)
        self._results: _Recorded = _Recorded(position)
        self._counts: tuple[int, ...] = ()
        #: What this process has found; nothing where it has no batches.
        self.part = Part((), (), {}, None)

    @override
    def limit(self, batches: int | float) -> None:
        self._counts = tuple(int(batch_count(length(one), batches)) for one in self._whole)
        shares = [
            share_of(loader, self._share, count)
            for loader, count in zip(self._whole, self._counts, strict=True)
        ]
        self._combined_loader = CombinedLoader(shares, "sequential")
        self._max_batches = [len(self._share.numbers(count)) for count in self._counts]
        self.part = Part(self._counts, (), {}, None)

    @override
    def _evaluation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int, dataloader_iter: Any
    ) -> None:
        number = self._share.rank + batch_idx * self._share.world
        self.position.batch = number
        with self._watch.step(dataloader_idx):
            super()._evaluation_step(batch, number, dataloader_idx, dataloader_iter)

    @override
    def _store_dataloader_outputs(self) -> None:
        """Wait for the batches of the other processes."""

    @override
    def on_run_end(self) -> list[Any]:
        self.part = self._own_part()
        if self._collect is None:
            return []  # the first process goes on with what all have found
        self._join(self._collect(self.part))
        return super().on_run_end()

    def _own_part(self) -> Part:
        states = take_states(self._module)
        why = self._watch.why() or self._results.why or why_not_joined(self._module)
        if len(self._counts) > 1 and states:
            why = why or "there are several loaders, and metrics of torchmetrics go over them"
        return Part(self._counts, tuple(self._results.logs), states, why)

    def _join(self, parts: Sequence[Part]) -> None:
        """Log what all processes have logged, in the order of the batches."""
        if any(part.counts != self._counts for part in parts):
            raise CannotShareError("the processes have validation data of different lengths")
        for why in (part.why for part in parts if part.why):
            raise CannotShareError(why)
        join_states(self._module, [part.states for part in parts])
        connector, several = self.trainer._logger_connector, len(self._counts) > 1
        self._results.records = False
        for loader in range(len(self._counts)):
            for batch, logs in _by_batch(parts, loader):
                self.position.loader, self.position.batch = loader, batch + 1
                connector.on_batch_start(None, loader if several else None)
                for one in logs:
                    metric = one.options["metric_attribute"] if isinstance(one.value, str) else None
                    value = one.value if metric is None else self._module.get_submodule(metric)
                    self._results.log(one.fx, one.name, value, **one.options)
                connector.on_batch_end()
            super()._store_dataloader_outputs()


def _by_batch(parts: Sequence[Part], loader: int) -> Iterator[tuple[int, Iterator[Logged]]]:
    """Yield the number of each batch of a loader with what was logged for it, in order."""
    logs = [one for part in parts for one in part.logs if one.loader == loader]
    return groupby(sorted(logs, key=lambda one: one.batch), key=lambda one: one.batch)
