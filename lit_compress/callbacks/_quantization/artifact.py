"""Write the artefact of a converted network: its files, and the card with what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info

from lit_compress.artifact import Card, Variant, folder_swap, sha256, write_card
from lit_compress.artifact.folder.names import MODEL
from lit_compress.artifact.replay import REPLAY
from lit_compress.callbacks._budget.latency_budget import TimesInt8
from lit_compress.callbacks._quantization.allowed import left_of_budget
from lit_compress.callbacks._quantization.conversion import Conversion
from lit_compress.callbacks._quantization.formats import write_formats
from lit_compress.callbacks._quantization.quality import say_float_weights
from lit_compress.callbacks._report.variants import empty_card, float_name, float_variant
from lit_compress.checkpoints.folder import trained_weights
from lit_compress.checkpoints.saved_weights import WEIGHTS, save_weights
from lit_compress.evaluation.last_validation.watch import Logged
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.trainer_access import callbacks_of_type
from lit_compress.measure import file_bytes, int8_share, onnx_counts
from lit_compress.pruning.channels.unpruned import UnprunedShapes, is_smaller


@dataclass(frozen=True)
class ArtifactOf:
    """What is written in addition to the network itself.

    Attributes:
        before: Shapes of the network before it was pruned, if it was.
        epoch: Number of epochs that the weights were trained; None if it is not known.
        monitor: Key of the metric; None measures none.
        arguments: For the card, the arguments of the callback.
        pruning: For the card, what pruning callbacks have reached. Default: those of the run.
        logged: The metric of the float network as the last validation has logged it. Default: it is
            measured.
    """

    before: UnprunedShapes | None
    epoch: int | None
    monitor: str | None
    arguments: Mapping[str, Any]
    pruning: Sequence[dict[str, Any]] | None = None
    logged: Logged | None = None


def write_artifact(target: Path, conversion: Conversion, what: ArtifactOf) -> None:
    """Write the artefact of a network, whole or not at all.

    Args:
        target: The artefact folder.
        conversion: The conversion of the network.
        what: What is written in addition.

    Raises:
        AccuracyError: If no file keeps the metric and ``on_drop`` is ``error``.
        ExportError: If a format cannot have the network.
    """
    with folder_swap(target) as folder:
        save_weights(conversion.copy, folder / WEIGHTS, what.before)
        conversion.write_first(folder / MODEL)
        plain = _float_variant(folder, conversion, what)
        int8 = _int8_variant(folder, conversion, plain)
        for budget in callbacks_of_type(conversion.trainer, TimesInt8):
            budget.time_again(folder / MODEL)
        say_float_weights(int8)
        others = [name for file in int8.formats for name in file.files]
        files = (MODEL, WEIGHTS, REPLAY, *others)
        hashes = {file: sha256(folder / file) for file in files}
        card = _card(conversion, what)
        write_card(folder, replace(card, variants=(plain, int8), files=hashes))


def _float_variant(folder: Path, conversion: Conversion, what: ArtifactOf) -> Variant:
    trainer, copy = conversion.trainer, conversion.copy
    name = "pruned" if is_smaller(copy, what.before) else float_name(trainer, copy)
    file = folder / WEIGHTS
    # What was logged is of these weights; that it is of the same data is known only now.
    same = what.logged is not None and conversion.took(what.logged.inputs)
    known = what.logged.metric if what.logged is not None and same else None
    plain = float_variant(name, trainer, copy, conversion.network, what.monitor, file, known=known)
    return replace(plain, epoch=what.epoch)


def _int8_variant(folder: Path, conversion: Conversion, plain: Variant) -> Variant:
    """Write the int8 file, its stored inputs and the other formats, and measure them."""
    metric, fidelity = conversion.write(folder / MODEL, plain.metric, _allowed(conversion, plain))
    conversion.write_replay(folder / REPLAY)
    rank_zero_info(conversion.pixels.why)
    return Variant(
        "int8",
        *onnx_counts(folder / MODEL),
        macs=plain.macs,
        bytes=file_bytes(folder / MODEL),
        file=MODEL,
        metric=metric,
        fidelity=fidelity,
        epoch=plain.epoch,
        int8_share=int8_share(folder / MODEL),
        float_weights=conversion.float_weights,
        formats=write_formats(conversion, folder / MODEL, conversion.settings),
        note=conversion.stored.note,
    )


def _allowed(conversion: Conversion, plain: Variant) -> float | None:
    return left_of_budget(conversion.trainer, conversion.settings, plain.metric)


def _card(conversion: Conversion, what: ArtifactOf) -> Card:
    """Return the card without its variants."""
    split = "val" if validation_loaders(conversion.trainer) else "train"
    arguments = {
        **what.arguments,
        **({"calibration_split": split} if split == "train" else {}),
        **conversion.pixels.normalization(),
        "network": conversion.network.path,
        "inputs": list(conversion.network.signature.names),
    }
    card = empty_card(conversion.trainer, {"PostTrainingQuantization": arguments})
    return card if what.pruning is None else replace(card, pruning=tuple(what.pruning))


def keep_weights(target: Path, copy: LightningModule, before: UnprunedShapes | None) -> str:
    """Save the float weights after a failed conversion, and return how to convert them.

    Args:
        target: The artefact folder, next to which the weights are kept.
        copy: The module with the weights.
        before: Shapes of the network before it was pruned, if it was.
    """
    path = trained_weights(target)
    save_weights(copy, path, before)
    return (
        f"The trained float weights are in {path}. To convert them later: "
        "lit_compress.trainer.Trainer().quantize(model, datamodule=..., "
        f"ckpt_path={str(path)!r})"
    )
