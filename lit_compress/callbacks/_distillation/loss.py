"""The loss of distillation for one call of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lit_compress.artifact.answers import Answers, find_answers
from lit_compress.callbacks._distillation.calls import NetworkCall
from lit_compress.distillation import Kind, feature_loss, output_loss
from lit_compress.errors import InvalidArgumentError
from lit_compress.export.outputs import Outputs


@dataclass
class CallLoss:
    """What is learned from the teacher: outputs, and features of some layers.

    Attributes:
        temperature: Scores are divided by it before the softmax.
        weight: Factor of the loss of the outputs.
        outputs: What outputs mean; ``auto`` finds it from the labels of the first batch.
        features: Names of the layers whose outputs are matched.
        feature_weight: Factor of their loss.
        kinds: For each output, what it means and the axis of its classes, once it is known.
    """

    temperature: float
    weight: float
    outputs: Kind | Literal["auto"]
    features: tuple[str, ...]
    feature_weight: float
    kinds: list[tuple[Kind, int]] = field(default_factory=list)

    def of(
        self,
        call: NetworkCall,
        answer: tuple[Any, dict[str, Tensor]],
        batch: Any,
        kept: Callable[[str], Tensor | None],
    ) -> Tensor:
        """Return the loss.

        Args:
            call: The call of the network.
            answer: What the teacher returns for it, and the outputs of its layers.
            batch: The batch of data.
            kept: Returns the indices of a layer's outputs that pruning has left; None for all.

        Raises:
            InvalidArgumentError: If the teacher returns other shapes.
        """
        ours, theirs = (_floats(value) for value in (call.result, answer[0]))
        if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
            raise InvalidArgumentError(
                f"the teacher returns {_shapes(theirs)}, and the network {_shapes(ours)}: give a "
                "teacher with outputs of the same shapes"
            )
        if len(self.kinds) != len(ours):
            self.kinds = self._found_kinds(call, ours, batch)
        parts = [
            output_loss(kind, student, teacher, self.temperature, axis)
            for (kind, axis), student, teacher in zip(self.kinds, ours, theirs, strict=True)
        ]
        loss = self.weight * torch.stack(parts).sum()
        for layer in self.features:
            if layer in call.features and layer in answer[1]:
                matched = feature_loss(call.features[layer], answer[1][layer], kept(layer))
                loss = loss + self.feature_weight * matched
        return loss

    def _found_kinds(
        self, call: NetworkCall, outputs: Sequence[Tensor], batch: Any
    ) -> list[tuple[Kind, int]]:
        """Return what the outputs mean, and the axis of the classes."""
        given, inputs = _arrays(batch), _arrays((call.args, call.kwargs))
        found = [find_answers(array, given, inputs) for array in _arrays(list(outputs))]
        if self.outputs != "auto":  # the labels still say along which axis the classes are
            return [(self.outputs, 1 if one is None else one.axis) for one in found]
        rank_zero_info(f"KnowledgeDistillation: the outputs are {_words(found)}")
        return [_kind(answers) for answers in found]


def _kind(answers: Answers | None) -> tuple[Kind, int]:
    if answers is None or answers.kind == "side of 0.5":
        return "values", 1
    return ("labels", 1) if answers.kind == "sign" else ("classes", answers.axis)


def _words(found: Sequence[Answers | None]) -> str:
    named = {"classes": "scores of classes", "labels": "a logit for each label", "values": "values"}
    return ", ".join(named[_kind(answers)[0]] for answers in found)


def _arrays(value: Any) -> list[np.ndarray]:
    tensors = [leaf.detach().cpu() for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return [(t.float() if t.is_floating_point() else t).numpy() for t in tensors]


def _floats(result: Any) -> list[Tensor]:
    return [t for t in Outputs.of(result).tensors(result) if t.is_floating_point()]


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(" x ".join(map(str, tensor.shape)) for tensor in tensors) or "no tensor"
