"""Loggers, callbacks and profilers of a run can be read, and nothing reaches them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.profilers import SimpleProfiler

from lit_compress.evaluation.run_view.silent import (
    SilentCallback,
    SilentLogger,
    SilentProfiler,
    silent_experiment,
)


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_logger_is_read_and_writes_nothing(kind: type, tmp_path: Path) -> None:
    real = kind(tmp_path, "name", "version")
    logger = SilentLogger(real)
    assert isinstance(logger, kind)
    assert (logger.name, logger.version, logger.log_dir) == ("name", "version", real.log_dir)
    logger.log_metrics({"loss": 1.0}, 3)
    logger.log_hyperparams({"lr": 0.1})
    logger.save()
    logger.finalize("success")
    assert not list(tmp_path.rglob("metrics.csv"))
    assert not list(tmp_path.rglob("hparams.yaml"))


def test_what_is_called_on_an_experiment_does_nothing(tmp_path: Path) -> None:
    real = TensorBoardLogger(tmp_path, "name", "version")
    writer = SilentLogger(real).experiment
    assert isinstance(writer, type(real.experiment))
    assert writer.get_logdir() == real.experiment.get_logdir()
    size = [file.stat().st_size for file in tmp_path.rglob("events*")]
    writer.add_scalar("loss", 1.0, 0)[0].of("it", more=1)
    writer.purge_step = 7
    real.experiment.flush()
    assert [file.stat().st_size for file in tmp_path.rglob("events*")] == size
    assert real.experiment.purge_step != 7
    real.experiment.close()


def test_an_experiment_that_is_a_module_of_functions_is_silent() -> None:
    class Tracker:
        url, calls = "http://tracker", []  # type: ignore[var-annotated]

        def track(self, value: float) -> None:
            self.calls.append(value)

    tracker = Tracker()
    silent = silent_experiment(tracker)
    assert silent.url == "http://tracker"
    with silent.track(3.0) as nothing:
        assert (len(nothing), list(nothing)) == (0, [])
    assert tracker.calls == []


def test_a_callback_is_read_and_its_hooks_do_nothing(tmp_path: Path) -> None:
    class Steps(Callback):
        seen = 0

        def on_train_batch_end(self, *_: object) -> None:
            self.seen += 1

        def double(self) -> int:
            return 2 * self.seen

    real = Steps()
    real.seen = 4
    view = SilentCallback(real)
    view.on_train_batch_end(None, None, None, None, 0)
    view.on_validation_end(None, None)
    assert isinstance(view, Steps)
    assert (view.seen, view.double(), real.seen) == (4, 8, 4)
    checkpoint = SilentCallback(ModelCheckpoint(tmp_path / "kept"))
    checkpoint.on_train_end(None, None)
    assert checkpoint.dirpath == str(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_profiler_measures_nothing() -> None:
    real = SimpleProfiler()
    view = SilentProfiler(real)
    with view.profile("step"):
        pass
    assert dict(real.recorded_durations) == {}
    assert isinstance(view, SimpleProfiler)
