"""Measuring the variants of a card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.artifact import Card, Metric, Timing, TimingRatio, Variant
from lit_compress.callbacks._pruning.base import pruning_callbacks
from lit_compress.evaluation.export_target import ExportTarget
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.metric import measure_metric
from lit_compress.export.signature import Batch, as_tuple, first_rows, is_batched
from lit_compress.measure import Latency, compare, cost, environment, file_bytes
from lit_compress.pruning.channels.unpruned import UnprunedShapes, carried, is_smaller
from lit_compress.pruning.layers import PRUNABLE
from lit_compress.timing.in_turn import Runner


def unpruned_shapes(trainer: Trainer) -> UnprunedShapes | None:
    """Return the shapes before this run or an earlier one removed channels, None if none did."""
    whole = None if trainer.lightning_module is None else carried(trainer.lightning_module)
    for pruner in pruning_callbacks(trainer):
        if (known := pruner.unpruned_shapes()) is not None:
            whole = known if whole is None else whole.before(known)
    return whole


def float_name(trainer: Trainer, module: LightningModule) -> str:
    """Return the name of the trained float network on the card.

    It is ``pruned`` if this run or an earlier one removed channels of the network, or zeroed 1 % of
    its weights, and ``dense`` otherwise.
    """
    if is_smaller(module) or any(pruner.history for pruner in pruning_callbacks(trainer)):
        return "pruned"
    weights = [m.weight for m in module.modules() if isinstance(m, PRUNABLE)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return "pruned" if zeros > 0.01 * sum(w.numel() for w in weights) else "dense"


def empty_card(trainer: Trainer, config: dict[str, Any]) -> Card:
    """Return a card of this run, without variants.

    Args:
        trainer: The run.
        config: By the name of a callback, its arguments.
    """
    seed = os.environ.get("PL_GLOBAL_SEED")
    return Card(
        run=_run_name(trainer),
        variants=(),
        environment=environment(),
        config=config,
        seed=int(seed) if seed and seed.lstrip("-").isdigit() else None,
        pruning=tuple(pruner.progress() for pruner in pruning_callbacks(trainer)),
    )


def float_variant(
    name: str,
    trainer: Trainer,
    copy: LightningModule,
    network: ExportTarget,
    monitor: str | None,
    file: Path | None = None,
    limit: int | None = None,
    known: Metric | None = None,
) -> Variant:
    """Return the variant of a float network: its cost, its file, and its metric.

    Args:
        name: Name of the variant.
        trainer: The run in progress.
        copy: A copy of the user's module with the weights of the variant.
        network: The network in it.
        monitor: Key of the metric; None measures none.
        file: File with the weights of the variant.
        limit: Largest number of validation batches. Default: as in the run.
        known: Its metric, if it is known. Default: it is measured.
    """
    called = network.called(copy)
    captured = called if network.signature.plain else network.captured(copy)
    counted = cost(captured, first_rows([as_tuple(network.inputs[0])], 1))
    loaders, metric = validation_loaders(trainer), known
    if known is None and monitor is not None and loaders:
        metric = measure_metric(trainer, copy, loaders, monitor, target=called, limit=limit)
    return Variant(
        name,
        counted.parameters,
        counted.nonzero,
        macs=None if counted.uncounted else counted.macs,
        bytes=None if file is None else file_bytes(file),
        file=None if file is None else file.name,
        metric=metric,
        epoch=trainer.current_epoch,
        note=_without_macs(counted.uncounted),
    )


def _without_macs(operators: tuple[str, ...]) -> str | None:
    """Return why a variant has no MACs, None if it has."""
    if not operators:
        return None
    return f"no MACs, since those of {', '.join(operators)} are not known"


def timed(card: Card, latencies: Mapping[str, Latency], engines: Mapping[str, str]) -> Card:
    """Return the card with the measured latencies.

    Args:
        card: The card.
        latencies: By the name of a variant, its latency.
        engines: By the name of a variant, the runtime that ran it.
    """
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
    """Time variants in turn, each against the first one and against one in the same runtime.

    Args:
        runners: By variant name; all are compared with the first.
        same_engine: By variant name, the variant that it is compared with in its own runtime.
        batch: Images per call of the runners.
        threads: Threads of the runners.
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
    """Return a batch of ``size`` inputs; the rows of the example are repeated if needed."""
    tensors = as_tuple(example)
    length = len(tensors[0])
    rows = torch.arange(size) % length
    return tuple(t[rows].contiguous() if is_batched(t, length) else t for t in tensors)


def run_eagerly(module: nn.Module, inputs: tuple[Tensor, ...]) -> Runner:
    """Return a function that runs a module in eager PyTorch, without gradients."""
    module.eval()

    def run() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return run


def _timing(latency: Latency, engine: str) -> Timing:
    return Timing(
        engine=engine,
        batch=latency.batch,
        threads=latency.threads,
        seconds=latency.seconds,
        interval=latency.interval,
        confidence=latency.confidence,
        rounds=latency.rounds,
        ratios=tuple(
            TimingRatio(s.over, s.ratio, s.interval, s.significant) for s in latency.speedups
        ),
    )


def _run_name(trainer: Trainer) -> str:
    logger = trainer.logger
    if logger is None or logger.name is None:
        return "run"
    return f"{logger.name}/{logger.version}"
