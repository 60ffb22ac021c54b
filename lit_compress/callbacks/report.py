"""The report: every variant measured, on the console, in the loggers and on the card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lit_compress.artifact import (
    Card,
    OnnxModel,
    Variant,
    check_target,
    folder_swap,
    read_card,
    sha256,
    write_card,
)
from lit_compress.artifact.read import FP32, MODEL
from lit_compress.artifact.replay import REPLAY, read_replay
from lit_compress.callbacks._pruning.base import BeforePruning, pruning_callbacks
from lit_compress.callbacks._quantization.best_weights import load_best
from lit_compress.callbacks._report.dashboard import (
    log_card,
    log_epoch,
    log_layout,
    log_weights,
)
from lit_compress.callbacks._report.fp32 import write_fp32
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
from lit_compress.callbacks._run.supported import check_run
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.checkpoints.folder import RunFiles, artifact_dir, is_artifact, release, run_files
from lit_compress.checkpoints.saved_weights import WEIGHTS, load_saved, save_weights
from lit_compress.checkpoints.weights import load_weights, trained_epochs
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.export_target import ExportTarget, find_export_target
from lit_compress.evaluation.metric import check_monitor
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import (
    callbacks_of_type,
    is_fast_dev_run,
)
from lit_compress.measure import file_bytes, onnx_counts
from lit_compress.report import card_table, counted


class CompressionReport(Callback, BeforePruning):
    """Measures what compression changed: dense, pruned and int8 in one table.

    Accuracy, parameters, non-zeros, MACs, bytes on disk and latency, each measured at the end of
    the fit, are printed, logged by the trainer's loggers, and added to the artefact's
    ``card.json``. ``dense`` is the network just before the first pruning step, or the one that
    ``baseline`` names. Beside an int8 file the float network is kept as ``model-fp32.onnx``, which
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
        self._dense: str | None = None
        self._dense_epoch = 0
        self._dense_sha256: str | None = None
        self._module: ref[LightningModule] | None = None
        self._earlier: Card | None = None
        self._files = RunFiles(Path(), Path())
        self._target = Path()
        self._finished = self._trained = False

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "dense": self._dense,
            "dense_epoch": self._dense_epoch,
            "dense_sha256": self._dense_sha256,
            "history": self._history.state(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._dense = state_dict["dense"]
        self._dense_epoch = int(state_dict["dense_epoch"])
        self._dense_sha256 = state_dict.get("dense_sha256")
        self._history.restore(state_dict.get("history", []))

    @override
    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._dense = None  # that of another run; the state is loaded after this
        self._history.restore([])

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_run(self, trainer, stage)
        if stage != "fit":
            return
        self._earlier, self.card = self.card, None
        self._finished = self._trained = False
        if self._module is None or self._module() is not pl_module:
            self._dense = None  # a further fit of the same network goes on
            self._history.restore([])
        self._module = ref(pl_module)
        self._files = run_files(trainer)
        self._target = artifact_dir(trainer, self.dirpath)
        fast = is_fast_dev_run(trainer)
        if trainer.is_global_zero and not fast and not _quantizer(trainer):
            check_target(self._target)

    @override
    def before_pruning(self, trainer: Trainer, pl_module: LightningModule) -> None:
        log_weights(trainer, pl_module)
        if self.baseline is None:
            self._keep_dense(trainer, pl_module, trainer.current_epoch)

    def _keep_dense(self, trainer: Trainer, module: LightningModule, epochs: int) -> None:
        """Keep the weights of a module as those of the dense network."""
        path = self._files.dense
        if trainer.is_global_zero and not is_fast_dev_run(trainer):
            save_weights(module, path, unpruned_shapes(trainer))
            self._dense_sha256 = sha256(path)
        self._dense, self._dense_epoch = str(path), epochs

    def _take_baseline(self, trainer: Trainer, copy: LightningModule, path: str) -> None:
        load_weights(copy, path, argument="baseline")
        self._keep_dense(trainer, copy, trained_epochs(path) or 0)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network once on a batch, so that errors come before the training."""
        log_layout(trainer, self._monitored(trainer))
        if self.baseline is not None and self._dense is None:
            self._take_baseline(trainer, clone(trainer, pl_module), self.baseline)
        if trainer.is_global_zero and not _quantizer(trainer):
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
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        release(trainer)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finished = True

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report after the ``on_fit_end`` of every callback, in any order of callbacks."""
        if stage != "fit" or not self._finished or is_fast_dev_run(trainer):
            return
        self._finished = False
        if trainer.is_global_zero and self._is_new(trainer):
            with isolate_rng():
                self.card = self._report(trainer, pl_module)
            print("\n" + card_table(self.card) + "\n")
            if any(pruner.history for pruner in pruning_callbacks(trainer)):
                log_weights(trainer, pl_module)
            log_card(trainer, self.card)
        trainer.strategy.barrier("lit_compress.report")
        release(trainer)

    def _is_new(self, trainer: Trainer) -> bool:
        """Tell whether there is something to report: a fit that trains nothing changes no file."""
        quantizer = _quantizer(trainer)
        if self._trained or (quantizer.written if quantizer else not is_artifact(self._target)):
            return True
        self.card = self._earlier
        rank_zero_info(f"nothing was trained: the card in {self._target} stays as it is")
        return False

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> Card:
        quantizer, monitor = _quantizer(trainer), self._monitored(trainer)
        copy = clone(trainer, pl_module)
        if quantizer is not None and quantizer.weights == "best":
            load_best(trainer, copy)
        network = find_export_target(trainer, copy, quantizer.submodule if quantizer else None, 1)
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
                name, trainer, copy, network, monitor=monitor, file=folder / WEIGHTS
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
        dense = self._dense_copy(trainer, copy)
        if dense is not None:
            variants.insert(0, self._dense_variant(trainer, dense, network, monitor))
            runners["dense"] = run_eagerly(network.captured(dense), inputs)
        runners[name] = run_eagerly(network.captured(copy), inputs)
        engines.update(dict.fromkeys(runners, "pytorch"))
        bases: dict[str, str] = {}
        files = dict(card.files)
        if MODEL in card.files:
            base = f"{name} onnx"
            plain = self._onnx_variant(trainer, base, copy, network, folder, card.variant(name))
            variants.insert(-1, plain)
            files[FP32] = sha256(folder / FP32)
            for variant, file in ((base, FP32), ("int8", MODEL)):
                runners[variant] = _run_file(folder, file, self.batch_size, self.threads)
                engines[variant] = "onnxruntime"
            bases["int8"] = base
        latencies = time_variants(runners, bases, self.batch_size, self.threads)
        config = {**card.config, "CompressionReport": {"monitor": monitor}}
        history = tuple(self._history.epochs)
        everything = tuple(variants)
        card = replace(card, variants=everything, config=config, history=history, files=files)
        return timed(card, latencies, engines)

    def _dense_copy(self, trainer: Trainer, copy: LightningModule) -> LightningModule | None:
        pruned = any(pruner.history for pruner in pruning_callbacks(trainer))
        if not pruned and self.baseline is None:
            return None
        if self._dense is None or not Path(self._dense).is_file():
            rank_zero_warn(
                "the dense network is not in the report: "
                f"{self._dense or 'the file of its weights'} does not exist, or the run was "
                "resumed from a checkpoint that was saved without CompressionReport"
            )
            return None
        if self._dense_sha256 is not None and sha256(self._dense) != self._dense_sha256:
            rank_zero_warn(
                f"the dense network is not in the report: another run has replaced {self._dense}"
            )
            return None
        dense = clone(trainer, copy)
        load_saved(dense, Path(self._dense))
        return dense

    def _dense_variant(
        self, trainer: Trainer, dense: LightningModule, network: ExportTarget, monitor: str | None
    ) -> Variant:
        variant = float_variant(
            "dense", trainer, dense, network, monitor=monitor, file=Path(self._dense or "")
        )
        trained = self._dense_epoch
        if self.baseline is not None:
            epochs = f" for {counted(trained, 'epoch')}" if trained else ""
            return replace(variant, epoch=trained or None, note=f"trained on its own{epochs}")
        epochs = f"{counted(trained, 'epoch')} of {trainer.current_epoch}"
        note = f"after {epochs}, just before the first pruning"
        return replace(variant, epoch=trained, note=note if trained else f"untrained: {note}")

    def _onnx_variant(
        self,
        trainer: Trainer,
        name: str,
        copy: LightningModule,
        network: ExportTarget,
        folder: Path,
        like: Variant,
    ) -> Variant:
        """Write the float network beside the int8 file, with the same inputs."""
        quantizer = _quantizer(trainer)
        preprocess = quantizer.preprocess if quantizer else None
        quality = write_fp32(folder, network.captured(copy).eval(), network, preprocess)
        return Variant(
            name,
            *onnx_counts(folder / FP32),
            macs=like.macs,
            bytes=file_bytes(folder / FP32),
            file=FP32,
            fidelity=quality,
            note=f"the {like.name} weights as fp32 ONNX, int8's base in the same runtime",
        )

    def _monitored(self, trainer: Trainer) -> str | None:
        quantizer = _quantizer(trainer)
        return self.monitor or (quantizer.monitor if quantizer else None)


def _quantizer(trainer: Trainer) -> PostTrainingQuantization | None:
    return next(iter(callbacks_of_type(trainer, PostTrainingQuantization)), None)


def _run_file(folder: Path, file: str, size: int, threads: int) -> Any:
    """Run a file of an artefact on the inputs stored with it: raw pixels, if it takes them."""
    model = OnnxModel(folder / file, threads)
    stored = tuple(map(torch.from_numpy, read_replay(folder / REPLAY)[0]))
    batch = [tensor.numpy() for tensor in to_batch(stored, size)]
    return lambda: model(*batch)
