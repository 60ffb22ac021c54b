"""The error that the outputs of a network get when some of its channels are zero."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.evaluation.export_target import ExportTarget, find_export_target
from lit_compress.evaluation.ranks.parts import in_parts
from lit_compress.evaluation.ranks.weights import Weights
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.export.outputs import as_tensors
from lit_compress.export.signature import as_tuple, first_rows
from lit_compress.progress import track
from lit_compress.pruning.selection.state import PruningState

#: Inputs to measure with, and the seconds that it should take; at least LEAST inputs are taken.
INPUTS, SECONDS, LEAST = 256, 60.0, 16


@dataclass(frozen=True)
class _Given:
    """What a process measures with.

    Attributes:
        target: Where the network is in the module.
        weights: The weights of the module.
        rows: Inputs of the network.
        content: The pruning state.
        trials: The numbers of all channels that are zero, for each trial.
    """

    target: ExportTarget
    weights: Weights
    rows: tuple[Tensor, ...]
    content: dict[str, Any]
    trials: Sequence[Sequence[int]]


def errors_without(
    trainer: Trainer, module: LightningModule, state: PruningState, trials: Sequence[Sequence[int]]
) -> list[float]:
    """Measure the relative squared error of a network's outputs for each of several selections.

    The processes of a run share the selections, if the first one calls this while it works alone.

    Args:
        trainer: The run.
        module: The user's module; it does not change.
        state: The pruning state of the network.
        trials: The numbers of the channels that are zero, for each trial; those that the state has
            selected are zero anyway.

    Returns:
        The error of each trial: that of the worst output.
    """
    copy = clone(trainer, module)
    target = find_export_target(trainer, copy, state.submodule or None, 8, seed=0)
    network = target.captured(copy).eval()
    rows = first_rows([as_tuple(batch) for batch in target.inputs], INPUTS)
    rows = first_rows([rows], _affordable(network, rows, len(trials)))
    place, weights = replace(target, inputs=()), Weights.of(copy)
    given = _Given(place, weights, rows, state.to_dict(), trials)
    return in_parts(trainer, len(trials), _measured, given)


def _measured(trainer: Trainer, numbers: Sequence[int], given: _Given) -> list[float]:
    """Return the errors of some trials."""
    copy = clone(trainer, trainer.lightning_module)
    given.weights.give_to(copy)
    network, parameters = given.target.captured(copy).eval(), dict(copy.named_parameters())
    state = PruningState.from_dict(given.content)
    selected, found = state.selected, []
    with torch.no_grad():
        expected = [tensor.double() for tensor in as_tensors(network(*_clones(given.rows)))]
        for number in track(trainer, numbers, "what channels are worth"):
            state.select(selected.union(given.trials[number]))
            with _zeroed(parameters, state.masks(parameters)):
                outputs = as_tensors(network(*_clones(given.rows)))
            found.append(_error(expected, outputs))
    return found


def _affordable(network: nn.Module, rows: tuple[Tensor, ...], trials: int) -> int:
    """Return the number of inputs with which all trials take about ``SECONDS``."""
    few = first_rows([rows], LEAST)
    with torch.no_grad():
        network(*_clones(few))
        start = time.monotonic()
        network(*_clones(few))
    each = (time.monotonic() - start) / len(few[0])
    return int(max(LEAST, min(INPUTS, SECONDS / max(1e-9, each * trials))))


@contextmanager
def _zeroed(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Set masked elements of tensors to zero inside the block."""
    before = {name: tensors[name].detach().clone() for name in masks}
    for name, mask in masks.items():
        tensors[name].mul_(mask)
    try:
        yield
    finally:
        for name, tensor in before.items():
            tensors[name].copy_(tensor)


def _error(expected: list[Tensor], outputs: tuple[Tensor, ...]) -> float:
    pairs = zip(expected, outputs, strict=True)
    return max(
        float((one - other).square().sum() / one.square().sum().clamp(min=1e-30))
        for one, other in pairs
    )


def _clones(rows: tuple[Tensor, ...]) -> list[Tensor]:
    return [tensor.clone() for tensor in rows]
