"""Post-training quantisation at the end of a fit."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from typing_extensions import override

from lit_compress.artifact import (
    Card,
    Fidelity,
    OnnxModel,
    Variant,
    check_target,
    folder_swap,
    sha256,
    write_card,
)
from lit_compress.artifact.read import MODEL
from lit_compress.callbacks.best import load_best
from lit_compress.callbacks.evaluation import (
    check_monitor,
    clone,
    measured,
)
from lit_compress.callbacks.folder import WEIGHTS, artifact_dir, save_weights
from lit_compress.callbacks.loaders import validation_loaders
from lit_compress.callbacks.network import Network, find_network
from lit_compress.callbacks.variants import empty_card, float_name, float_variant, original
from lit_compress.errors import InvalidArgumentError
from lit_compress.measure import file_bytes, onnx_counts

LOW_SQNR_DB = 15.0


class PostTrainingQuantization(Callback):
    """Turns the trained network into a checked int8 ONNX file, at the end of the fit.

    Works on a copy: the LightningModule and its checkpoints are never touched. The folder holds
    ``model.onnx`` (int8 weights by channel, uint8 activations), ``model.safetensors`` (the float
    weights) and ``card.json`` (what was measured of both). It appears in one step, or not at all.

    Args:
        monitor: Key that your ``validation_step`` logs, such as ``val_acc``; it is measured of the
            float network and of the file itself. Default: only the outputs are compared.
        weights: Convert the ``last`` weights, or those of the ``best`` checkpoint that
            ModelCheckpoint kept since the pruning target was reached.
        dirpath: The artefact folder. Default: ``artifact`` in the run's log folder.
        submodule: Name of the module to export, such as ``model``. Default: the LightningModule's
            own forward.
        calibration_batches: Validation batches from which the ranges of activations are taken.
        calibration: ``histogram`` minimises the quantisation error, ``minmax`` takes the whole
            range.
        preprocess: ``embed`` puts the datamodule's normalisation into the file, which then takes
            raw uint8 pixels; ``none`` leaves it out.
    """

    def __init__(
        self,
        monitor: str | None = None,
        weights: Literal["last", "best"] = "last",
        dirpath: str | None = None,
        submodule: str | None = None,
        calibration_batches: int = 10,
        calibration: Literal["histogram", "minmax"] = "histogram",
        preprocess: Literal["embed", "none"] = "embed",
    ) -> None:
        for name, value, choices in (
            ("weights", weights, ("last", "best")),
            ("calibration", calibration, ("histogram", "minmax")),
            ("preprocess", preprocess, ("embed", "none")),
        ):
            if value not in choices:
                raise InvalidArgumentError(f"{name} must be one of {choices}, got {value!r}")
        if calibration_batches < 1:
            raise InvalidArgumentError(
                f"calibration_batches must be at least 1, got {calibration_batches}: without data "
                "there are no ranges to quantise to"
            )
        self.monitor = monitor
        self.weights = weights
        self.dirpath = dirpath
        self.submodule = submodule
        self.calibration_batches = calibration_batches
        self.calibration = calibration
        self.preprocess = preprocess
        #: The artefact folder, once it is written.
        self.path: Path | None = None
        self._target = Path()
        self._checked_monitor = False

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, for the card."""
        names = ("monitor", "weights", "submodule", "calibration_batches", "calibration")
        return {name: getattr(self, name) for name in (*names, "preprocess")}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.path, self._checked_monitor = None, False
        self._target = artifact_dir(trainer, self.dirpath)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            check_target(self._target)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the untrained network to nowhere: better to fail now than after the training."""
        from lit_compress.quantization import write_onnx

        if trainer.is_global_zero:
            with isolate_rng():
                copy = clone(trainer, pl_module)
                network = find_network(trainer, copy, self.submodule, 1)
                write_onnx(network.captured(copy).eval(), network.inputs[0], None)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is not None and not self._checked_monitor and trainer.callback_metrics:
            check_monitor(self.monitor, trainer.callback_metrics)
            self._checked_monitor = True

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._finish(trainer, pl_module)
        # Without it, a process that ends early can take the one that is still writing with it.
        trainer.strategy.barrier("lit_compress.artifact")

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            with tempfile.TemporaryDirectory() as folder:
                self._write(trainer, pl_module, Path(folder) / "artifact")
            rank_zero_info("fast_dev_run: the int8 artefact was made, checked and thrown away")
            return
        self._write(trainer, pl_module, self._target)
        self.path = self._target
        rank_zero_info(f"int8 artefact written to {self.path}")

    def _write(self, trainer: Trainer, pl_module: LightningModule, target: Path) -> None:
        copy = clone(trainer, pl_module)
        if self.weights == "best":
            load_best(trainer, copy)
        with isolate_rng():
            network = find_network(trainer, copy, self.submodule, self.calibration_batches)
            with folder_swap(target) as folder:
                save_weights(copy, folder / WEIGHTS, original(trainer))
                embedded = self._convert(trainer, copy, network, folder / MODEL)
                card = self._card(trainer, copy, network, folder, embedded)
                write_card(folder, card)

    def _convert(
        self, trainer: Trainer, copy: LightningModule, network: Network, path: Path
    ) -> bool:
        """Write the int8 file; return whether the preprocessing is in it."""
        from lit_compress.quantization import Embedded, quantize, write_onnx

        graph = quantize(
            network.captured(copy), network.inputs, network.inputs[0], self.calibration
        )
        data = trainer.datamodule  # type: ignore[attr-defined]
        metadata = {"lit_compress.classes": "\n".join(getattr(data, "classes", ()))}
        pixels = self._embeddable(data, network)
        if pixels is None:
            write_onnx(graph, network.inputs[0], path, metadata)
            return False
        write_onnx(Embedded(data.preprocess, graph), pixels, path, metadata)
        return True

    def _embeddable(self, data: Any, network: Network) -> Tensor | None:
        """Return raw pixels, if the datamodule's preprocessing of them is what the network gets."""
        if self.preprocess == "none" or not hasattr(data, "pixels"):
            return None
        if not isinstance(getattr(data, "preprocess", None), nn.Module) or not len(
            data.pixels("val").dataset
        ):
            return None
        pixels: Tensor = next(iter(data.pixels("val")))[0]
        return pixels if torch.equal(data.preprocess(pixels), network.inputs[0]) else None

    def _card(
        self,
        trainer: Trainer,
        copy: LightningModule,
        network: Network,
        folder: Path,
        embedded: bool,
    ) -> Card:
        model = OnnxModel(folder / MODEL)
        name = float_name(trainer, copy)
        plain = float_variant(name, trainer, copy, network, self.monitor, folder / WEIGHTS)
        parameters, nonzero = onnx_counts(folder / MODEL)
        int8 = Variant(
            "int8",
            parameters,
            nonzero,
            plain.macs,
            file_bytes(folder / MODEL),
            MODEL,
            fidelity=self._fidelity(trainer, copy, network, model, embedded),
            epoch=plain.epoch,
        )
        loaders = validation_loaders(trainer)
        if self.monitor is not None and not loaders:
            rank_zero_warn(f"{self.monitor} was not measured: the fit has no validation data")
        if self.monitor is not None and loaders:
            if embedded:
                loaders = [trainer.datamodule.pixels("val")]  # type: ignore[attr-defined]
            called = network.called(copy)
            metric = measured(
                trainer, copy, loaders, self.monitor, called, lambda x: _run(model, x)
            )
            int8 = replace(int8, metric=metric)
        card = empty_card(trainer, {"PostTrainingQuantization": self.arguments()})
        hashes = {file: sha256(folder / file) for file in (MODEL, WEIGHTS)}
        return replace(card, variants=(plain, int8), files=hashes)

    def _fidelity(
        self,
        trainer: Trainer,
        copy: LightningModule,
        network: Network,
        model: OnnxModel,
        embedded: bool,
    ) -> Fidelity:
        from lit_compress.quantization import agreement, sqnr_db

        inputs: Any = network.inputs
        if embedded:
            loader = trainer.datamodule.pixels("val")  # type: ignore[attr-defined]
            inputs = [batch[0] for _, batch in zip(inputs, loader, strict=False)]
        captured = network.captured(copy).eval()
        with torch.no_grad():
            expected = np.concatenate([captured(batch).numpy() for batch in network.inputs])
        found = np.concatenate([model(batch) for batch in inputs])
        quality = Fidelity(sqnr_db(expected, found), agreement(expected, found), len(expected))
        if quality.sqnr_db < LOW_SQNR_DB:
            rank_zero_warn(
                f"the int8 file is only at {quality.sqnr_db:.1f} dB of the float network, with the "
                f"same class for {quality.agreement:.1%} of {quality.n} images: look at its metric "
                "before using it"
            )
        return quality


def _run(model: OnnxModel, inputs: Tensor) -> Tensor:
    return torch.from_numpy(model(inputs.numpy()))
