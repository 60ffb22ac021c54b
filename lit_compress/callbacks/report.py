"""The report: every variant measured, on the console, in the loggers and on the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lit_compress.artifact import (
    Card,
    Fidelity,
    OnnxModel,
    Variant,
    check_target,
    folder_swap,
    read_card,
    sha256,
    write_card,
)
from lit_compress.artifact.folder.names import FP32, MODEL
from lit_compress.artifact.replay import REPLAY, read_replay
from lit_compress.callbacks._budget.contract import HasBaseline
from lit_compress.callbacks._pruning.base import BeforePruning, pruning_callbacks
from lit_compress.callbacks._quantization.best_weights import load_best
from lit_compress.callbacks._report.dashboard import (
    log_card,
    log_epoch,
    log_layout,
    log_weights,
)
from lit_compress.callbacks._report.dense import DenseNetwork
from lit_compress.callbacks._report.fp32 import check_fits, fits, write_fp32
from lit_compress.callbacks._report.history import History
from lit_compress.callbacks._report.variants import (
    empty_card,
    float_name,
    float_variant,
    run_eagerly,
    time_variants,
    timed,
    to_batch,
    unpruned_shapes,
)
from lit_compress.callbacks._run.earlier import AddsToCard, is_complete
from lit_compress.callbacks._run.resuming import name_checkpoint
from lit_compress.callbacks._run.supported import check_run
from lit_compress.callbacks._run.watching import WatchesValidation
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.checkpoints.folder import RunFiles, artifact_dir, release, run_files
from lit_compress.checkpoints.saved_weights import WEIGHTS, save_weights
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.export_target import ExportTarget, find_export_target
from lit_compress.evaluation.last_validation.watch import LastValidation
from lit_compress.evaluation.metric import check_monitor
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import (
    callbacks_of_type,
    is_fast_dev_run,
)
from lit_compress.measure import file_bytes, onnx_counts
from lit_compress.progress import end_live_display
from lit_compress.report import card_table


class CompressionReport(WatchesValidation, AddsToCard, BeforePruning, HasBaseline):
    """Measures what compression changed: dense, pruned and int8 in one table.

    Accuracy, parameters, non-zeros, MACs, bytes on disk and latency, each measured at the end of
    the fit, are printed, logged by the trainer's loggers, and added to the artefact's
    ``card.json``. ``dense`` is the network just before the first pruning step, or the one that
    ``baseline`` names. Next to an int8 file the float network is kept as ``model-fp32.onnx``, which
    ``lit_compress.load(path, weights="fp32")`` runs. The position of this callback in the list does
    not matter.

    Args:
        monitor: Key that your ``validation_step`` logs. Default: that of PostTrainingQuantization.
        batch_size: Images per call when latency is measured.
        threads: Threads when latency is measured.
        dirpath: Folder of the card in a run without PostTrainingQuantization. Default:
            ``artifact`` in the run's folder, where its checkpoints are too.
        baseline: Checkpoint or ``.safetensors`` file of the same network, not pruned, that was
            trained on its own for as long: a fair ``dense``. Default: the network just before the
            first pruning step, which has trained less.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
        CheckpointError: If ``baseline`` cannot be read or is of another network; this comes before
            the training.

    Example:
        >>> from lit_compress.callbacks import CompressionReport
        >>> CompressionReport(monitor="val_acc").card is None  # until a fit has ended
        True
    """

    def __init__(
        self,
        monitor: str | None = None,
        batch_size: int = 1,
        threads: int = 1,
        dirpath: str | None = None,
        baseline: str | None = None,
    ) -> None:
        if batch_size < 1 or threads < 1:
            raise InvalidArgumentError(
                f"batch_size and threads must be at least 1, got {batch_size} and {threads}"
            )
        self.monitor = monitor
        self.batch_size = batch_size
        self.threads = threads
        self.dirpath = dirpath
        self.baseline = baseline
        #: The card; None until the fit has ended.
        self.card: Card | None = None
        self._history = History()
        self._dense = DenseNetwork(baseline)
        self._module: ref[LightningModule] | None = None
        self._earlier: Card | None = None
        self._files = RunFiles(Path(), Path())
        self._target = Path()
        self._finished = self._trained = False
        self._opened: OnnxModel | None = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**self._dense.state(), "history": self._history.state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._dense.restore(state_dict)
        self._history.restore(state_dict.get("history", {}))

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._forget()  # that of another run; the state is loaded after this

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_run(self, trainer, stage)
        if stage != "fit":
            return
        name_checkpoint(trainer)
        self._earlier, self.card = self.card, None
        self._finished = self._trained = False
        if self._module is None or self._module() is not pl_module:
            self._forget()  # a further fit of the same network goes on
        self._module = ref(pl_module)
        self._files = run_files(trainer)
        self._target = artifact_dir(trainer, self.dirpath)
        fast = is_fast_dev_run(trainer)
        if trainer.is_global_zero and not fast and not _quantizer(trainer):
            check_target(self._target)

    def _forget(self) -> None:
        self._dense.forget()
        self.last_validation.forget()
        self._history.forget()

    @override
    def dense_network(self, trainer: Trainer, pl_module: LightningModule) -> LightningModule | None:
        return (
            None if self.baseline is None else self._dense.copy(trainer, clone(trainer, pl_module))
        )

    @override
    def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        log_weights(trainer, pl_module)
        self._history.before_pruning(pl_module)
        logged = self._last(trainer).metrics(trainer, pl_module, self._monitored(trainer))
        self._dense.before_pruning(trainer, pl_module, self._files.dense, logged)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network once on a batch, so that errors come before the training."""
        log_layout(trainer, self._monitored(trainer))
        quantizer = _quantizer(trainer)
        if quantizer is not None and not pruning_callbacks(trainer):
            check_fits(pl_module, quantizer.submodule)
        self._dense.take_baseline(trainer, pl_module, self._files.dense)
        if quantizer is None:
            on_rank_zero(trainer, lambda: self._try_out(trainer, pl_module))

    def _try_out(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with isolate_rng():
            copy = clone(trainer, pl_module)
            network = find_export_target(trainer, copy, None, 1)
            float_variant("dense", trainer, copy, network, monitor=self.monitor, limit=1)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._history.begin()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        log_epoch(trainer, self._history.record(trainer, pl_module))

    @override
    def watches(self, trainer: Trainer) -> bool:
        quantizer = _quantizer(trainer)
        shared = quantizer is not None and quantizer.watches(trainer)
        return self.monitor is not None and not shared

    @override
    def watched_part(self, trainer: Trainer) -> str | None:
        quantizer = _quantizer(trainer)
        return None if quantizer is None else quantizer.submodule

    def _last(self, trainer: Trainer) -> LastValidation:
        """Return the last validation, which one callback of a run watches."""
        quantizer = _quantizer(trainer)
        shared = quantizer is not None and quantizer.watches(trainer)
        return (quantizer if quantizer is not None and shared else self).last_validation

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        # In the sanity check a module that names its metrics by the stage has other names.
        if self.monitor is not None and trainer.callback_metrics and not trainer.sanity_checking:
            check_monitor(self.monitor, trainer.callback_metrics)
        if not trainer.sanity_checking:
            self._history.validated(trainer, self._monitored(trainer))
            self._history.record(trainer, pl_module)  # for a checkpoint that is saved now

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._trained = True

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        super().on_exception(trainer, pl_module, exception)
        release(trainer)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finished = True
        # The quantizer closes it in its teardown, which may come before this one's.
        self._opened = quantizer.opened if (quantizer := _quantizer(trainer)) else None

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report after the ``on_fit_end`` of every callback, in any order of callbacks."""
        if stage != "fit" or not self._finished or is_fast_dev_run(trainer):
            return
        self._finished = False
        self.card = on_rank_zero(
            trainer,
            lambda: self._reported(trainer, pl_module),
            "it measures the network, and writes the card",
        )
        release(trainer)

    def _reported(self, trainer: Trainer, pl_module: LightningModule) -> Card | None:
        """Write and print the card, where there is something to report."""
        if not self._is_new(trainer, pl_module):
            return self._earlier
        end_live_display(trainer, pl_module)
        with isolate_rng():
            card = self._report(trainer, pl_module)
        self._opened = None
        print("\n" + card_table(card) + "\n")
        if any(pruner.history for pruner in pruning_callbacks(trainer)):
            log_weights(trainer, pl_module)
        log_card(trainer, card)
        return card

    def _is_new(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Tell whether there is something to report: a fit that trains nothing changes no file."""
        quantizer = _quantizer(trainer)
        if self._trained or (quantizer is not None and quantizer.written):
            return True
        if quantizer is None and not is_complete(self._target, pl_module, [self]):
            return True
        rank_zero_info(f"nothing was trained: the card in {self._target} stays as it is")
        return False

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> Card:
        quantizer, monitor = _quantizer(trainer), self._monitored(trainer)
        copy = clone(trainer, pl_module)
        if quantizer is not None and quantizer.weights == "best":
            load_best(trainer, copy)
        logged = self._last(trainer).metrics(trainer, copy, monitor)
        network = find_export_target(trainer, copy, quantizer.submodule if quantizer else None, 1)
        known = logged[network.path].metric if network.path in logged else None
        if quantizer is not None and quantizer.path is not None:
            folder = quantizer.path
            card = self._enriched(
                trainer, read_card(folder), copy, network, folder=folder, monitor=monitor
            )
            write_card(folder, card)
            return card
        with folder_swap(self._target) as folder:
            save_weights(copy, folder / WEIGHTS, unpruned_shapes(trainer))
            name = float_name(trainer, copy)
            plain = float_variant(
                name, trainer, copy, network, monitor, folder / WEIGHTS, known=known
            )
            card = replace(
                empty_card(trainer, {}),
                variants=(plain,),
                files={WEIGHTS: sha256(folder / WEIGHTS)},
            )
            card = self._enriched(trainer, card, copy, network, folder=folder, monitor=monitor)
            write_card(folder, card)
        return card

    def _enriched(
        self,
        trainer: Trainer,
        card: Card,
        copy: LightningModule,
        network: ExportTarget,
        folder: Path,
        monitor: str | None,
    ) -> Card:
        """Return the card with the dense network added and the latency of every variant."""
        name = float_name(trainer, copy)
        inputs = to_batch(network.inputs[0], self.batch_size)
        runners: dict[str, Any] = {}
        engines: dict[str, str] = {}
        variants = list(card.variants)
        dense = self._dense.copy(trainer, copy)
        if dense is not None:
            # Without pruning both are dense: the baseline needs a name of its own.
            other = "baseline" if name == "dense" else "dense"
            last = self._last(trainer)
            found = self._dense.variant(trainer, dense, network, monitor, last)
            variants.insert(0, replace(found, name=other))
            runners[other] = run_eagerly(network.captured(dense), inputs)
        runners[name] = run_eagerly(network.captured(copy), inputs)
        engines.update(dict.fromkeys(runners, "pytorch"))
        bases: dict[str, str] = {}
        files = dict(card.files)
        if MODEL in card.files:
            replay, int8 = read_replay(folder / REPLAY), self._int8(trainer, folder)
            captured, base = network.captured(copy).eval(), f"{name} onnx"
            preprocess = quantizer.preprocess if (quantizer := _quantizer(trainer)) else None
            if fits(captured):
                fp32, quality = write_fp32(
                    folder, captured, network, preprocess, int8, replay, self.threads
                )
                variants.insert(-1, _onnx_variant(base, folder, card.variant(name), quality))
                files[FP32] = sha256(folder / FP32)
                runners[base] = _run_file(fp32, replay[0], self.batch_size)
                engines[base], bases["int8"] = "onnxruntime", base
            runners["int8"] = _run_file(int8, replay[0], self.batch_size)
            engines["int8"] = "onnxruntime"
        latencies = time_variants(runners, bases, self.batch_size, self.threads)
        config = {**card.config, "CompressionReport": {"monitor": monitor}}
        card = replace(
            card,
            variants=tuple(variants),
            config=config,
            history=tuple(self._history.epochs),
            unpruned=self._history.unpruned,
            files=files,
        )
        return timed(card, latencies, engines)

    def _int8(self, trainer: Trainer, folder: Path) -> OnnxModel:
        """Return the int8 file, as it was opened to be measured."""
        quantizer = _quantizer(trainer)
        opened = self._opened if quantizer is None else quantizer.opened or self._opened
        return opened if opened and self.threads == 1 else OnnxModel(folder / MODEL, self.threads)

    def _monitored(self, trainer: Trainer) -> str | None:
        quantizer = _quantizer(trainer)
        return self.monitor or (quantizer.monitor if quantizer else None)


def _quantizer(trainer: Trainer) -> PostTrainingQuantization | None:
    return next(iter(callbacks_of_type(trainer, PostTrainingQuantization)), None)


def _onnx_variant(name: str, folder: Path, like: Variant, quality: Fidelity) -> Variant:
    """Return the variant of the float network next to the int8 file."""
    return Variant(
        name,
        *onnx_counts(folder / FP32),
        macs=like.macs,
        bytes=file_bytes(folder / FP32),
        file=FP32,
        fidelity=quality,
        note=f"the {like.name} weights as fp32 ONNX, int8's base in the same runtime",
    )


def _run_file(model: OnnxModel, inputs: Sequence[np.ndarray], size: int) -> Any:
    """Run a file of an artefact on the inputs stored with it: raw pixels, if it takes them."""
    stored = tuple(map(torch.from_numpy, inputs))
    batch = [tensor.numpy() for tensor in to_batch(stored, size)]
    return lambda: model(*batch)
