"""The Trainer of a run as the steps of a copy of the module see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import (
    _LoggerConnector,
)
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.trainer.states import RunningStage, TrainerFn, TrainerState, TrainerStatus
from torch.optim import Optimizer

from lit_compress.evaluation.run_view.proxy import View, own_attributes, unviewed
from lit_compress.evaluation.run_view.silent import (
    SilentCallback,
    SilentLogger,
    SilentProfiler,
    do_nothing,
)
from lit_compress.evaluation.trainer_access import callbacks, profiler

#: Methods of a strategy that call the module's steps.
STEPS = ("training_step", "validation_step", "test_step", "predict_step")
#: Methods of a Trainer that write, or begin another run.
EFFECTS = ("save_checkpoint", "fit", "validate", "test", "predict")
#: What a step reads of its process. It runs in one process, which may be any, as in the first one:
#: what steps log in the first process alone is logged.
FIRST = {"is_global_zero": True, "global_rank": 0, "local_rank": 0, "node_rank": 0}


class StrategyView(View):
    """The strategy of a run with another module, on this process alone.

    Args:
        real: The strategy.
        module: Takes the place of the run's module.
        optimizers: Take the place of the run's optimizers; None leaves those.
    """

    def __init__(
        self, real: Any, module: LightningModule, optimizers: Sequence[Optimizer] | None
    ) -> None:
        own: dict[str, Any] = {
            "_lightning_module": module,
            "lightning_module": module,
            "model": module,
            "root_device": module.device,
            **FIRST,
        }
        # The other processes do not run this: a call of theirs would wait for ever.
        alone = {"barrier": do_nothing, "reduce_boolean_decision": _first}
        alone |= dict.fromkeys(("reduce", "all_gather", "broadcast"), _first)
        super().__init__(real, **own, **alone)
        own = own_attributes(self)
        for name in STEPS:  # what callbacks put around the steps of the run is for its own module
            own[name] = MethodType(getattr(type(unviewed(real)), name), self)
        if optimizers is not None:
            own["optimizers"] = own["_optimizers"] = list(optimizers)
            own["_lightning_optimizers"] = [_lightning(one, self) for one in optimizers]


class TrainerView(View, Trainer):
    """The Trainer of a run: reads are the run's own, and nothing of the run changes.

    Hooks read the loggers, the datamodule, the loaders, the callbacks and the metrics of the run.
    Nothing is logged or saved, and no callback is called.

    Args:
        real: The Trainer of the run.
        module: The copy of the module whose steps run.
        stage: The stage that the steps see.
        results: What the steps log goes here; None collects it in the view.
        optimizers: Optimizers of the copy; None shows those of the run.
        precision: Takes the place of the run's precision plugin; None leaves it.
        logged: Metrics that are shown as if the run had logged them.
    """

    def __init__(
        self,
        real: Trainer,
        module: LightningModule,
        stage: RunningStage,
        results: _ResultCollection | None = None,
        optimizers: Sequence[Optimizer] | None = None,
        precision: Any = None,
        logged: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(real)
        own = own_attributes(self)
        fitting = real.state.fn is TrainerFn.FITTING
        function = TrainerFn.FITTING if fitting else TrainerFn.VALIDATING
        own["state"] = TrainerState(status=TrainerStatus.RUNNING, fn=function, stage=stage)
        own["strategy"] = strategy = StrategyView(real.strategy, module, optimizers)
        if precision is not None:
            strategy.precision_plugin = precision
        own["callbacks"] = [SilentCallback(callback) for callback in callbacks(real)]
        own["_loggers"] = own["loggers"] = [SilentLogger(logger) for logger in real.loggers]
        own["profiler"] = SilentProfiler(profiler(real))
        own["barebones"] = False  # its self.log() does nothing, and the metric is wanted
        training = stage is RunningStage.TRAINING
        own["_results"] = _ResultCollection(training=training) if results is None else results
        own["_logger_connector"] = _LoggerConnector(self)
        own["_logged_before"] = dict(logged or {})
        own["current_epoch"] = _current_epoch(real)
        own |= dict.fromkeys(EFFECTS, do_nothing)

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """The metrics of the run so far, and those logged here."""
        return self._metrics("callback_metrics")

    @property
    def logged_metrics(self) -> dict[str, Any]:
        """The logged metrics of the run so far, and those logged here."""
        return self._metrics("logged_metrics")

    @property
    def progress_bar_metrics(self) -> dict[str, Any]:
        """The metrics in the progress bar so far, and those logged here."""
        return self._metrics("progress_bar_metrics")

    def _metrics(self, name: str) -> dict[str, Any]:
        run = unviewed(self)._logger_connector
        here = getattr(self._logger_connector, name)
        return {**own_attributes(self)["_logged_before"], **getattr(run, f"_{name}"), **here}


def _current_epoch(trainer: Trainer) -> int:
    """Return the epoch; after the fit Lightning's is one past the last."""
    epoch, last = trainer.current_epoch, trainer.max_epochs or 0
    return min(epoch, last - 1) if last > 0 else epoch


def _first(value: Any, *_: Any, **__: Any) -> Any:
    return value


def _lightning(optimizer: Optimizer, strategy: Any) -> LightningOptimizer:
    made = LightningOptimizer(optimizer)
    made._strategy = strategy
    return made
