"""The data of a run: are there batches, can they be read, are their values and labels usable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from lit_compress.artifact.answers import IGNORED
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.doctor.finding import Answer, error, fine, warning
from lit_compress.evaluation.loaders import copied, length, unmoved
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.export.signature import as_tuple

#: Largest number of batches of a split that are read.
BATCHES = 32
#: Label that torch's losses pass over.
PASSED_OVER = -100


@dataclass
class Split:
    """One split of the data.

    Attributes:
        name: Its name, for messages.
        loaders: Its loaders.
        first: The first batch of each loader that has one.
        labels: By position in a batch, the batch with the largest and with the smallest label.
    """

    name: str
    loaders: list[Any]
    first: list[Any] = field(default_factory=list)
    labels: dict[str, list[Any]] = field(default_factory=dict)

    def check(self) -> list[Answer]:
        """Read the first batches of each loader: they must be there, and hold finite numbers."""
        if not self.loaders:
            return [fine("there is none")]
        return [answer for number in range(len(self.loaders)) for answer in self._check(number)]

    def _check(self, number: int) -> list[Answer]:
        loader, name = self.loaders[number], self.name
        if len(self.loaders) > 1:
            name += f" loader {number}"
        if not length(loader):
            remedy = "give it data: look at the split, and at drop_last with a large batch_size"
            return [error(f"the {name} has no batch", remedy)]
        readable = copied(loader)
        if readable is None:
            return [fine(f"the {name} is a stream that can be read once only, and was not read")]
        with unmoved([readable]):
            read = self._read(readable, name)
        if isinstance(read, Answer):
            return [read]
        if not read:
            return [error(f"the {name} gives no batch", "give it data: its iterator ends at once")]
        return [fine(f"{read} batches read; the first has {shapes(self.first[-1])}")]

    def _read(self, loader: Iterable[Any], name: str) -> int | Answer:
        """Return the number of batches that were read, or what is wrong with one."""
        count = 0
        for count, batch in enumerate(islice(loader, BATCHES), start=1):
            if count == 1:
                self.first.append(batch)
            for place, tensor in tensors_of(batch):
                if not tensor.numel():
                    found = f"{place} of batch {count - 1} of the {name} is empty"
                    return error(f"{found}, of shape {list(tensor.shape)}", "fix its collate_fn")
                if tensor.is_floating_point() and (bad := int((~tensor.isfinite()).sum())):
                    found = f"{place} of batch {count - 1} of the {name} holds {bad} values"
                    remedy = "fix the data, or the transform that makes them"
                    return error(f"{found} that are NaN or infinite", remedy)
                if not tensor.is_floating_point() and tensor.dtype is not torch.bool:
                    self._note(place, tensor, batch)
        return count

    def _note(self, place: str, labels: Tensor, batch: Any) -> None:
        """Keep the batches with the smallest and with the largest label."""
        low, high = _range(labels)
        known = self.labels.setdefault(place, [low, batch, high, batch])
        if low < known[0]:
            known[:2] = low, batch
        if high > known[2]:
            known[2:] = high, batch


def check_labels(
    splits: Sequence[Split],
    module: LightningModule,
    fails: Callable[[Split, Any], bool],
) -> list[Answer]:
    """Compare the labels that were read with the number of classes of the network.

    Args:
        splits: The splits, after their batches were read.
        module: A copy of the module in eval mode, on the CPU.
        fails: Tells whether the user's own step fails on a batch of a split. A loss that takes such
            labels, as that of an embedding, makes them right.
    """
    found: list[Answer] = []
    for split in splits:
        outputs = _outputs(module, split.first[0]) if split.first else None
        if outputs is None or outputs.dim() < 2 or outputs.shape[1] < 2:
            continue
        classes = outputs.shape[1]
        shape = (len(outputs), *outputs.shape[2:])
        like = {place for place, t in tensors_of(split.first[0]) if tuple(t.shape) == shape}
        for place in sorted(like & split.labels.keys()):
            low, at_low, high, at_high = split.labels[place]
            answer = fine(f"{low} to {high} ({split.name}) within {classes} classes")
            for label, batch in ((high, at_high), (low, at_low)):
                if not 0 <= label < classes and fails(split, batch):
                    answer = error(
                        f"{place} of the {split.name} holds label {label}, and the network has "
                        f"{classes} classes, 0 to {classes - 1}",
                        "count labels from 0, or give the network as many outputs as there are "
                        "classes (num_classes)",
                    )
                    break
            found.append(answer)
    return found or [fine("the batches have no labels of classes")]


def check_calibration(
    trainer: Trainer, module: LightningModule, callbacks: Sequence[PostTrainingQuantization]
) -> list[Answer]:
    """Look for NaN and infinity in the very inputs that the ranges of int8 are taken from.

    Args:
        trainer: The run.
        module: The module.
        callbacks: The callbacks that convert.
    """
    found = []
    for callback in callbacks:
        settings, copy = callback.settings, clone(trainer, module)
        network = settings.network(trainer, copy)
        inputs = settings.calibration_inputs(trainer, copy, network)
        for number, batch in enumerate(inputs):
            for name, tensor in zip(network.signature.names, as_tuple(batch), strict=True):
                if tensor.is_floating_point() and (bad := int((~tensor.isfinite()).sum())):
                    found.append(
                        error(
                            f"calibration batch {number} ({name}) holds {bad} values that are NaN "
                            "or infinite",
                            "fix the data, or the transform that makes them",
                        )
                    )
        found += _constant(network.signature.names, [as_tuple(batch) for batch in inputs])
        images = sum(len(as_tuple(batch)[0]) for batch in inputs)
        found.append(fine(f"{images} inputs in {len(inputs)} batches, all finite"))
    return found


def tensors_of(batch: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a batch, each with its place, such as ``batch[0]``."""
    for path, leaf in tree_flatten_with_path(batch)[0]:
        if isinstance(leaf, Tensor):
            yield f"batch{keystr(path)}", leaf


def shapes(batch: Any) -> str:
    """Return the shapes of the tensors in a batch, for messages."""
    text = [f"{place} {list(tensor.shape)}" for place, tensor in tensors_of(batch)]
    return ", ".join(text) or type(batch).__name__


def _constant(names: Sequence[str], inputs: Sequence[tuple[Tensor, ...]]) -> list[Answer]:
    """Warn of inputs that have one value everywhere: they have no range to calibrate with."""
    found = []
    for name, tensors in zip(names, zip(*inputs, strict=True), strict=True):
        first = tensors[0].flatten()[:1]
        if first.is_floating_point() and all(bool((t == first).all()) for t in tensors):
            text = f"input {name} is {float(first):g} in all of the calibration data"
            found.append(warning(text, "look at the transform: nothing can be calibrated with it"))
    return found


def _range(labels: Tensor) -> tuple[int, int]:
    """Return the smallest and the largest label, without those that losses pass over."""
    counted = labels[(labels != PASSED_OVER) & (labels != IGNORED)]
    if not counted.numel():
        return 0, 0
    return int(counted.min()), int(counted.max())


def _outputs(module: LightningModule, batch: Any) -> Tensor | None:
    """Return the first output of a module for the first tensor of a batch; None if it has none."""
    inputs = next((tensor for _, tensor in tensors_of(batch)), None)
    if inputs is None:
        return None
    try:
        with torch.no_grad():
            outputs = module(inputs.cpu())
    except Exception:  # its steps may call the network otherwise, and are asked too
        return None
    return next((tensor for _, tensor in tensors_of(outputs)), None)
