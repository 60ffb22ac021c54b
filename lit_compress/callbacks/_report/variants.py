"""The variants of a card, measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.artifact import Card, Timing, TimingRatio, Variant
from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.validate import measured
from lit_compress.export.signature import Batch, as_tuple, first_rows, is_batched
from lit_compress.measure import Latency, compare, cost, environment, file_bytes
from lit_compress.measure.latency import Runner
from lit_compress.pruning.channels.resize import UnprunedShapes
from lit_compress.pruning.layers import PRUNABLE


def pruners(trainer: Trainer) -> list[PruningCallback]:
    """Return the run's pruning callbacks."""
    return [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # type: ignore[attr-defined]


def original(trainer: Trainer) -> UnprunedShapes | None:
    """Return what the network was like before this run removed channels from it, if it did."""
    found = [known for pruner in pruners(trainer) if (known := pruner.original()) is not None]
    return found[0] if found else None


def float_name(trainer: Trainer, module: LightningModule) -> str:
    """Return what the trained float network is called.

    ``pruned`` if this run pruned it, or 1 % of its weights are zero from an earlier run; ``dense``
    otherwise.
    """
    if any(pruner.history for pruner in pruners(trainer)):
        return "pruned"
    weights = [m.weight for m in module.modules() if isinstance(m, PRUNABLE)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return "pruned" if zeros > 0.01 * sum(w.numel() for w in weights) else "dense"


def empty_card(trainer: Trainer, config: dict[str, Any]) -> Card:
    """Return a card of this run, without variants."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return Card(
        run=_run_name(trainer),
        variants=(),
        environment=environment(),
        config=config,
        seed=int(seed) if seed and seed.lstrip("-").isdigit() else None,
        pruning=tuple(pruner.progress() for pruner in pruners(trainer)),
    )


def float_variant(
    name: str,
    trainer: Trainer,
    copy: LightningModule,
    network: ExportTarget,
    monitor: str | None,
    file: Path | None = None,
) -> Variant:
    """Return a float network's variant: its cost, its file, and its metric if one is monitored.

    Args:
        name: Name of the variant.
        trainer: The run in progress.
        copy: A copy of the user's module that holds its weights.
        network: Where the network is in it.
        monitor: Key of the metric.
        file: File that holds its weights.
    """
    called = network.called(copy)
    captured = called if network.signature.plain else network.captured(copy)
    counted = cost(captured, first_rows([as_tuple(network.inputs[0])], 1))
    loaders = validation_loaders(trainer)
    metric = None
    if monitor is not None and loaders:
        metric = measured(trainer, copy, loaders, monitor, called)
    return Variant(
        name,
        counted.parameters,
        counted.nonzero,
        counted.macs,
        None if file is None else file_bytes(file),
        None if file is None else file.name,
        metric,
        epoch=trainer.current_epoch,
    )


def timed(card: Card, latencies: Mapping[str, Latency], engines: Mapping[str, str]) -> Card:
    """Return the card with the latency of each variant that was timed."""
    return replace(
        card,
        variants=tuple(
            replace(v, latency=_timing(latencies[v.name], engines[v.name]))
            if v.name in latencies
            else v
            for v in card.variants
        ),
    )


def time_variants(
    runners: Mapping[str, Runner], same_engine: Mapping[str, str], batch: int, threads: int
) -> dict[str, Latency]:
    """Time variants in turn, each against the first and against its base in the same runtime.

    Args:
        runners: By variant name; the first is the base of all.
        same_engine: For a variant, the one it is compared with in its own runtime.
        batch: Images a call, as the runners have it.
        threads: Threads a call, as the runners have it.
    """
    names = list(runners)
    baselines = {
        name: tuple(
            dict.fromkeys([names[0], *([same_engine[name]] if name in same_engine else [])])
        )
        for name in names[1:]
    }
    return compare(runners, baselines=baselines, batch=batch, threads=threads)


def to_batch(example: Batch, size: int) -> tuple[Tensor, ...]:
    """Return a batch of ``size`` inputs, repeating the example's where they are too few."""
    tensors = as_tuple(example)
    length = len(tensors[0])
    rows = torch.arange(size) % length
    return tuple(t[rows].contiguous() if is_batched(t, length) else t for t in tensors)


def run_eagerly(module: nn.Module, inputs: tuple[Tensor, ...]) -> Runner:
    """Return a runner of a module as PyTorch runs it, without gradients."""
    module.eval()

    def run() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return run


def _timing(latency: Latency, engine: str) -> Timing:
    return Timing(
        engine,
        latency.batch,
        latency.threads,
        latency.seconds,
        latency.interval,
        latency.confidence,
        latency.rounds,
        tuple(TimingRatio(s.over, s.ratio, s.interval, s.significant) for s in latency.speedups),
    )


def _run_name(trainer: Trainer) -> str:
    logger = trainer.logger
    if logger is None or logger.name is None:
        return "run"
    return f"{logger.name}/{logger.version}"
