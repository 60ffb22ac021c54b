"""How close a written file is to the float network, and warnings if it is not close enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lit_compress.artifact import Fidelity, OutputFidelity, Variant, agreement, sqnr_db
from lit_compress.artifact.answers import Answers, find_answers
from lit_compress.artifact.fidelity import median_sqnr_db, sketch
from lit_compress.evaluation.data_protocols import HasClasses
from lit_compress.evaluation.loaders import training_loaders, unmoved, validation_loaders
from lit_compress.evaluation.trainer_access import datamodule
from lit_compress.export.signature import Batch, as_tuple
from lit_compress.quantization.float_weights import CHOSEN
from lit_compress.quantization.layer_noise import LayerNoise
from lit_compress.report.shortfalls import are_far
from lit_compress.report.table import LOW_INT8_SHARE, float_weights_text

#: Number of batches whose labels are looked at.
BATCHES = 4


def answers_of(
    trainer: Trainer, outputs: Sequence[np.ndarray], inputs: Sequence[Batch]
) -> list[Answers | None]:
    """Find out from the labels of the run's data what each output of a network answers.

    Args:
        trainer: The run, for its data.
        outputs: Outputs of the float network.
        inputs: Inputs of the network, as they were recorded.
    """
    data: object = datamodule(trainer)
    classes = len(data.classes) if isinstance(data, HasClasses) else 0
    loaders = (validation_loaders(trainer) or training_loaders(trainer))[:1]
    with unmoved(loaders):
        batches = [_arrays(batch) for loader in loaders for batch in islice(loader, BATCHES)]
    alike = [batch for batch in batches if len(batch) == len(batches[0])]
    labels = [_joined(arrays) for arrays in zip(*alike, strict=True)]
    given = [tensor.numpy() for tensor in as_tuple(inputs[0])]
    return [find_answers(output, labels, given, classes) for output in outputs]


def _arrays(batch: Any) -> list[np.ndarray]:
    leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, (Tensor, np.ndarray))]
    return [leaf.detach().cpu().numpy() if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the arrays of several batches as one; those of another shape are left out."""
    alike = [array for array in arrays if array.shape[1:] == arrays[0].shape[1:]]
    return np.concatenate(alike) if arrays[0].ndim else arrays[0]


@dataclass(frozen=True)
class ComparedOutput:
    """One output of a network, in float and from a file.

    Attributes:
        name: Its name in the file.
        expected: What the float network gives.
        found: What the file gives.
        stored: What the float network gives for the inputs that the artefact stores.
        kept: What the file gives for them.
        answers: How to read the answers; None if there are none.
    """

    name: str
    expected: np.ndarray
    found: np.ndarray
    stored: np.ndarray
    kept: np.ndarray
    answers: Answers | None

    @property
    def sqnr(self) -> float:
        """The SQNR of the output in dB."""
        return sqnr_db(self.expected, self.found)

    @property
    def kind(self) -> str | None:
        """What an answer is; None if there are none."""
        return None if self.answers is None else self.answers.kind

    @property
    def agreement(self) -> float | None:
        """The share of equal answers."""
        return None if self.answers is None else agreement(self.expected, self.found, self.answers)


def joined(batches: Sequence[Sequence[np.ndarray]], length: int) -> list[np.ndarray]:
    """Return the outputs of several batches as one each, with at least one axis.

    Args:
        batches: By batch, the outputs.
        length: Length of the first batch. An output of another length (anchors, a number) has no
            batch axis; it is the one of the first batch.
    """
    return [
        np.concatenate(parts)
        if parts[0].ndim and len(parts[0]) == length
        else np.atleast_1d(parts[0])
        for parts in zip(*batches, strict=True)
    ]


def compare_outputs(outputs: Sequence[ComparedOutput], count: int) -> Fidelity:
    """Return how close the outputs of a file are to those of the float network.

    Args:
        outputs: The outputs of the network. Of several, the worst one counts; the answers are
            those of the first one that gives answers.
        count: Number of inputs that were compared.
    """
    worst = min(outputs, key=lambda output: output.sqnr)
    answering = next((output for output in outputs if output.answers is not None), None)
    return Fidelity(
        worst.sqnr,
        None if answering is None else answering.agreement,
        count,
        replay_db=min(sqnr_db(o.stored, o.kept) for o in outputs),
        replay_sketch=sketch([o.kept for o in outputs]),
        agreement_on=None
        if answering is None or answering.answers is None
        else answering.answers.kind,
        median_db=median_sqnr_db(worst.expected, worst.found),
        outputs=tuple(map(_fidelity, outputs)) if len(outputs) > 1 else (),
    )


def _fidelity(output: ComparedOutput) -> OutputFidelity:
    return OutputFidelity(output.name, output.sqnr, output.agreement, output.kind)


def warn_if_far(quality: Fidelity, noise: Sequence[LayerNoise], prefix: str) -> None:
    """Warn if the outputs of a file are far from those of the float network.

    Args:
        quality: How close they are.
        noise: The error of each layer alone.
        prefix: What the names of layers begin with in the user's module.
    """
    if not are_far(quality):
        return
    typical = quality.sqnr_db if quality.median_db is None else quality.median_db
    worst = min(noise, key=lambda row: row.worst_db)
    rank_zero_warn(
        f"the outputs of the int8 file have {quality.sqnr_db:.1f} dB of SQNR ({typical:.1f} dB for "
        f"a typical input) against {quality.reference}, and {quality.agreement_text} (the "
        f"{worst.fault} of {prefix}{worst.name} has the largest error, {worst.worst_db:.1f} dB "
        "alone): check its metric before you use it, and the data that it was calibrated with for "
        "values far outside the others"
    )


def say_float_weights(variant: Variant) -> None:
    """Say which weights are not int8, if they are more than a tenth.

    It is a warning, except where the user chose the layers that are float.

    Args:
        variant: The converted variant.
    """
    if text := float_weights_text(variant):
        others = sum(w.share for w in variant.float_weights if w.reason != CHOSEN)
        (rank_zero_warn if others > 1 - LOW_INT8_SHARE else rank_zero_info)(text)
