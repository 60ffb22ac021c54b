"""Try a conversion on a few batches, before the training or for the size of its file."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from lit_compress.artifact.folder.names import MODEL
from lit_compress.artifact.replay import REPLAY
from lit_compress.artifact.variant import FloatWeight
from lit_compress.callbacks._quantization.conversion import Conversion
from lit_compress.callbacks._quantization.formats import write_formats
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.evaluation.export_target import warn_of_few_inputs, warn_of_other_weights

#: Batches that are enough to see that the conversion works.
FEW = 2


def few_batches(settings: Settings) -> int:
    """Return how many batches a trial calibrates with."""
    return min(FEW, settings.calibration_batches)


def try_conversion(
    trainer: Trainer, copy: LightningModule, settings: Settings
) -> tuple[FloatWeight, ...]:
    """Do all that the end of the fit does, on a few batches and without an artefact.

    Args:
        trainer: The run.
        copy: A copy of the user's module.
        settings: How to convert it.

    Returns:
        The weights that stay in float.
    """
    if settings.max_drop is not None:
        settings.rises(trainer, copy)
    brief = replace(settings, calibration_batches=few_batches(settings), max_drop=None)
    network = brief.network(trainer, copy)
    warn_of_other_weights(copy, network)
    warn_of_few_inputs(trainer, network, settings.calibration_batches)
    conversion = Conversion(trainer, copy, network, brief)
    with tempfile.TemporaryDirectory() as folder:
        conversion.try_out(Path(folder) / MODEL, FEW)
        write_formats(conversion, Path(folder) / MODEL, brief, trial=True)
        conversion.write_replay(Path(folder) / REPLAY)
    return conversion.float_weights


def tried_file(trainer: Trainer, copy: LightningModule, settings: Settings) -> bytes:
    """Return the content of the file that a network is converted to, by one batch.

    Args:
        trainer: The run.
        copy: A copy of the user's module.
        settings: How to convert it.
    """
    brief = replace(settings, calibration_batches=1, max_drop=None)
    network = brief.network(trainer, copy)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MODEL
        Conversion(trainer, copy, network, brief).try_out(file, 1)
        return file.read_bytes()
