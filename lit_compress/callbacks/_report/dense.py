"""The dense network that a report compares with: its weights in a file of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lit_compress.artifact import Metric, Variant, sha256
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.callbacks._report.variants import float_variant, unpruned_shapes
from lit_compress.checkpoints.saved_weights import load_saved, save_weights
from lit_compress.checkpoints.weights import load_weights, trained_epochs
from lit_compress.errors import InvalidArgumentError
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.last_validation.watch import LastValidation, Logged
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.evaluation.trainer_access import is_fast_dev_run
from lit_compress.report import counted


class DenseNetwork:
    """The network just before the first pruning step, or one that was trained on its own.

    Args:
        baseline: File of the weights of a network that was trained on its own; None if there is
            none.
    """

    def __init__(self, baseline: str | None = None) -> None:
        self.baseline = baseline
        self._path: str | None = None
        self._epochs = 0
        self._sha256: str | None = None
        #: By the name of the part that may be the network, its metric before the pruning. A resumed
        #: run measures it again, as its data may be others.
        self._logged: dict[str, Logged] = {}

    def forget(self) -> None:
        """Begin with none: the one that is known is of another run."""
        self._path, self._logged = None, {}

    def before_pruning(
        self,
        trainer: Trainer,
        module: LightningModule,
        path: Path,
        logged: Mapping[str, Logged],
    ) -> None:
        """Keep the weights just before the first pruning step, unless there is a baseline.

        Args:
            trainer: The run.
            module: The module.
            path: File to keep them in.
            logged: Its metric, by the name of the part that may be it, where it is known.
        """
        if self.baseline is None:
            self._logged = dict(logged)
            self._keep(trainer, module, path, trainer.current_epoch)

    def take_baseline(self, trainer: Trainer, module: LightningModule, path: Path) -> None:
        """Keep the weights of the baseline, if there is one and the run has not kept them yet.

        Args:
            trainer: The run.
            module: The module; it does not change.
            path: File to keep them in.

        Raises:
            CheckpointError: If the file cannot be read or is of another network.
            InvalidArgumentError: If its network is pruned.
        """
        if self.baseline is None or self._path is not None:
            return
        copy = clone(trainer, module)
        if load_weights(copy, self.baseline, argument="baseline") is not None:
            raise InvalidArgumentError(
                f"baseline: the network of {self.baseline} is pruned, so it is not dense: name a "
                "checkpoint of the unpruned network"
            )
        self._keep(trainer, copy, path, trained_epochs(self.baseline) or 0)

    def copy(self, trainer: Trainer, module: LightningModule) -> LightningModule | None:
        """Return a copy of a module with the dense weights.

        Args:
            trainer: The run.
            module: A copy of the user's module.

        Returns:
            The copy; None if there is nothing to compare with, or (with a warning) if the file is
            no longer the one that was kept.
        """
        pruned = any(pruner.history for pruner in pruning_callbacks(trainer))
        if not pruned and self.baseline is None:
            return None
        if (why := self._lost()) is not None:
            rank_zero_warn(f"the dense network is not in the report: {why}")
            return None
        dense = clone(trainer, module)
        load_saved(dense, Path(self._path or ""))
        return dense

    def variant(
        self,
        trainer: Trainer,
        dense: LightningModule,
        network: ExportTarget,
        monitor: str | None,
        last: LastValidation,
    ) -> Variant:
        """Measure a copy with the dense weights.

        Args:
            trainer: The run.
            dense: The copy.
            network: The network in it.
            monitor: Key of the metric; None measures none.
            last: The last validation of the run.
        """
        file = Path(self._path or "")
        known = self._known(network.path, monitor, last)
        variant = float_variant("dense", trainer, dense, network, monitor, file, known=known)
        if self.baseline is not None:
            epochs = f" for {counted(self._epochs, 'epoch')}" if self._epochs else ""
            note = f"trained on its own{epochs}"
            return replace(variant, epoch=self._epochs or None, note=_joined(note, variant.note))
        epochs = f"{counted(self._epochs, 'epoch')} of {trainer.current_epoch}"
        note = f"after {epochs}, just before the first pruning"
        note = note if self._epochs else f"the weights that the fit began with: {note}"
        return replace(variant, epoch=self._epochs, note=_joined(note, variant.note))

    def state(self) -> dict[str, Any]:
        """Return what finds the weights again, as plain values for a checkpoint."""
        return {"dense": self._path, "dense_epoch": self._epochs, "dense_sha256": self._sha256}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take on what :meth:`state` returned."""
        self._path = state["dense"]
        self._epochs = int(state["dense_epoch"])
        self._sha256 = state.get("dense_sha256")
        self._logged = {}

    def _known(self, path: str, monitor: str | None, last: LastValidation) -> Metric | None:
        """Return the metric before the pruning, if the last validation was of the same data."""
        logged = self._logged.get(path)
        if logged is None or logged.metric.name != monitor:
            return None
        return logged.metric if last.had_inputs(path, logged.inputs) else None

    def _keep(self, trainer: Trainer, module: LightningModule, path: Path, epochs: int) -> None:
        if trainer.is_global_zero and not is_fast_dev_run(trainer):
            save_weights(module, path, unpruned_shapes(trainer))
            self._sha256 = sha256(path)
        self._path, self._epochs = str(path), epochs

    def _lost(self) -> str | None:
        """Return why the weights cannot be used; None if they can."""
        if self._path is None or not Path(self._path).is_file():
            return (
                f"{self._path or 'the file of its weights'} does not exist, or the run was "
                "resumed from a checkpoint that was saved without CompressionReport"
            )
        if self._sha256 is not None and sha256(self._path) != self._sha256:
            return f"another run has replaced {self._path}"
        return None


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)
