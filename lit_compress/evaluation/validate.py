"""Running the user's own validation on a copy of the module, while a fit is in progress."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.trainer.connectors.data_connector import _parse_num_batches
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lit_compress.evaluation.loaders import copied, length, training_loaders, unmoved
from lit_compress.evaluation.run_view.copies import attached, clone_with, in_run, quiet
from lit_compress.evaluation.run_view.silent import do_nothing
from lit_compress.evaluation.run_view.trainer import TrainerView
from lit_compress.evaluation.run_view.training import train
from lit_compress.progress import Advance, progress_bar


@dataclass
class Position:
    """The batch that validation is at.

    Attributes:
        loader: Number of the loader.
        batch: How many batches were begun, over all loaders.
        content: What the loader gave; None where a step takes its batches by itself.
        higher_is_better: After validation, what the logged metric objects of torchmetrics say, by
            key.
        logged: The batches whose step logged a key, as pairs of loader and batch, by key.
    """

    loader: int = 0
    batch: int = 0
    content: Any = None
    higher_is_better: dict[str, bool] = field(default_factory=dict)
    logged: dict[str, set[tuple[int, int]]] = field(default_factory=dict)


class Results(_ResultCollection):
    """What validation logs; notes the batch of each key."""

    def __init__(self, position: Position) -> None:
        super().__init__(training=False)
        self.position = position

    @override
    def log(self, fx: str, name: str, *args: Any, **kwargs: Any) -> None:
        if fx in ("validation_step", "on_validation_batch_end"):
            at = (self.position.loader, self.position.batch)
            self.position.logged.setdefault(name, set()).add(at)
        super().log(fx, name, *args, **kwargs)


class Loop(_EvaluationLoop):
    """Lightning's own loop, over loaders that are given to it."""

    def __init__(self, loaders: list[Any], position: Position) -> None:
        super().__init__(
            None,  # type: ignore[arg-type]  # the view of the Trainer, which needs the results
            TrainerFn.FITTING,
            RunningStage.VALIDATING,
            verbose=False,
            inference_mode=False,  # recorded tensors are exported later
        )
        self._combined_loader = CombinedLoader(loaders, "sequential")
        self._last_val_dl_reload_epoch = float("inf")  # never asks the user's hook for others
        self.position = position
        self.advance: Advance = do_nothing
        self._results = Results(position)

    def limit(self, batches: int | float) -> None:
        """Set the largest number of batches of each loader, or their share."""
        loaders = self._combined_loader.flattened if self._combined_loader is not None else []
        self._max_batches = [batch_count(length(loader), batches) for loader in loaders]

    @override
    def _evaluation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int, dataloader_iter: Any
    ) -> None:
        # Not batch_idx: a step that takes an iterator has not taken its batch yet.
        self.position.batch, self.position.loader = self.position.batch + 1, dataloader_idx
        self.position.content = batch
        super()._evaluation_step(batch, batch_idx, dataloader_idx, dataloader_iter)
        self.advance()


def batch_count(length: int | float, limit: int | float) -> int | float:
    """Return how many batches of a loader validation reads.

    Args:
        length: Number of its batches.
        limit: Largest number of them (int), or their share (float).
    """
    return _parse_num_batches(RunningStage.VALIDATING, length, limit)


def validate(
    trainer: Trainer,
    module: LightningModule,
    loaders: list[Any],
    limit: int | float | None = None,
    position: Position | None = None,
    bar: str | None = None,
) -> dict[str, float]:
    """Run the module's own validation, and return the metrics that it logged.

    The module runs where the run's module is, and in its precision. What its steps read of the
    run is true (see :mod:`~lit_compress.evaluation.run_view`), and nothing of the run changes.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loaders: Loaders to validate on.
        limit: Largest number of batches of each, or their share. Default: as in the run.
        position: Says which batch it is at.
        bar: What is written at a progress bar. Default: there is no bar.
    """
    position = position or Position()
    try:
        return _run(trainer, module, loaders, limit, position, bar, {})
    except Exception as error:
        # Before the first training step a hook may miss what training steps log.
        logged = {} if trainer.global_step else _first_training_metrics(trainer)
        if not logged:
            raise
        position.batch = 0
        position.logged.clear()
        try:
            return _run(trainer, module, loaders, limit, position, bar, logged)
        except Exception:  # the second try was a guess, so the user is told of the first error
            raise error from None


def _run(
    trainer: Trainer,
    module: LightningModule,
    loaders: list[Any],
    limit: int | float | None,
    position: Position,
    bar: str | None,
    logged: dict[str, Any],
) -> dict[str, float]:
    return run_loop(trainer, module, Loop(loaders, position), loaders, limit, bar, logged)


def run_loop(
    trainer: Trainer,
    module: LightningModule,
    loop: Loop,
    loaders: list[Any],
    limit: int | float | None,
    bar: str | None = None,
    logged: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Run a loop of validation, and return the metrics that were logged.

    Args:
        trainer: The run in progress.
        module: A copy of the user's module.
        loop: The loop.
        loaders: Its loaders.
        limit: Largest number of batches of each, or their share; None takes that of the run.
        bar: What is written at a progress bar; None shows none.
        logged: Metrics that are shown as if the run had logged them.
    """
    with in_run(trainer, module), quiet(), isolate_rng(), unmoved(loaders):
        view = TrainerView(trainer, module, RunningStage.VALIDATING, loop._results, logged=logged)
        loop.trainer = view
        loop.limit(trainer.limit_val_batches if limit is None else limit)
        shown = (
            progress_bar(trainer, sum(loop.max_batches), bar) if bar else nullcontext(do_nothing)
        )
        with attached(module, view), shown as loop.advance:
            loop.run()
        loop.position.higher_is_better |= _directions(loop._results)
        loop.teardown()
    found = view._logger_connector.callback_metrics
    return {name: float(value) for name, value in found.items()}


def _directions(results: Any) -> dict[str, bool]:
    """Return by key whether more is better, where a metric object of torchmetrics was logged."""
    found = {}
    for result in results.values():
        higher = getattr(result.value, "higher_is_better", None)
        if isinstance(higher, bool):
            name, loader = result.meta.name, result.meta.dataloader_idx
            found[name if loader is None else f"{name}/dataloader_idx_{loader}"] = higher
    return found


def _first_training_metrics(trainer: Trainer) -> dict[str, Any]:
    """Return what a training step logs, run on a copy; nothing if none can be run."""
    loaders = [copied(loader) for loader in training_loaders(trainer)]
    if not loaders or None in loaders or not trainer.optimizers:
        return {}
    copy, optimizers = clone_with(trainer, trainer.lightning_module, trainer.optimizers)
    return train(trainer, copy, optimizers, loaders)
