"""Sensitivity scan: how much of each layer can be pruned before the user's own metric drops.

Each layer is pruned on its own, without training, at rising ratios (Li et al. 2017, arXiv
1608.08710, section 3.2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_compress.errors import ScanError
from lit_compress.evaluation.distributed import on_rank_zero
from lit_compress.evaluation.example_inputs import find_example_inputs
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.ranks.queue import is_same, share_out
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.progress import progress_bar
from lit_compress.pruning.importance import importance_of, refuse_nan
from lit_compress.sensitivity.calls.structure import tensors_of
from lit_compress.sensitivity.levels import Bisection, check_levels, largest_tolerated
from lit_compress.sensitivity.metric_drop import MetricDrop, metric_of_scan, tell_coarse_steps
from lit_compress.sensitivity.options import ScanOptions
from lit_compress.sensitivity.result import Scan, draw_curves, write_rule_file
from lit_compress.sensitivity.sample import NO_DATA, Sample, draw
from lit_compress.sensitivity.table import Row, Table, decoded, encoded
from lit_compress.sensitivity.targets import Target, channel_targets, weight_targets
from lit_compress.sensitivity.trials import TrialRunner


def scan_network(
    trainer: Trainer,
    module: LightningModule,
    options: ScanOptions,
    folder: Path,
) -> Scan:
    """Scan the network of a Trainer that has just validated it.

    All processes of the Trainer must call it: they share the layers, and the first one writes the
    files.

    Args:
        trainer: The Trainer, with its data set up.
        module: The user's module. It is not changed.
        options: The options of the scan.
        folder: Folder of the table, the rules and the curves. A stopped scan continues from the
            table in it.

    Returns:
        The result, also written to ``folder``.

    Raises:
        ScanError: If there is no validation data, the metric is NaN before pruning, or the folder
            has a scan with other settings.
        InvalidArgumentError: If validation does not log the metric.
        PatternError: If a pattern matches no layer, or a weight holds NaN.
    """
    loaders = validation_loaders(trainer)
    if not loaders:
        raise ScanError(NO_DATA)
    if len(loaders) > 1:
        rank_zero_warn(f"scan: of {len(loaders)} validation loaders, only the first is used")
    refuse_nan({n: p for n, p in module.named_parameters() if p.is_floating_point()})
    sample = draw(loaders[0], options.images, options.seed)
    targets = _targets(trainer, module, options)
    measure = TrialRunner(trainer, module, sample, [target.tensors for target in targets])
    monitor = metric_of_scan(options.monitor, measure.baseline)
    if measure.baseline[monitor] != measure.baseline[monitor]:
        raise ScanError(
            f"{monitor} is NaN before anything is pruned, so no drop can be measured: scan a "
            "network whose metric is a number, or give another monitor"
        )
    settings = _settings(module, options, sample)
    if not is_same(trainer, json.dumps(settings)):
        raise ScanError(
            "the processes have different weights or data: give ckpt_path, or call seed_everything "
            "before the model is made, and let each process read the same validation data"
        )
    table = on_rank_zero(trainer, lambda: Table.opened(folder, settings), "it reads the table")
    judge = MetricDrop(monitor, options, measure.baseline[monitor])
    rank_zero_info(f"scan: {len(targets) - 1} layers, {sample.how}")
    tell_coarse_steps(monitor, measure.baseline[monitor], sample.size, options.tolerance)
    _try_all(trainer, measure, targets, options, table, judge)

    def finished() -> Scan:
        chosen, drops = _choose(targets, options, table, judge)
        scan = Scan(
            rows=tuple(table.rows.values()),
            baseline=measure.baseline,
            chosen=chosen,
            drops=drops,
            monitor=monitor,
            folder=folder,
            how=sample.how,
        )
        write_rule_file(scan, options, targets)
        if options.curves:
            draw_curves(trainer, module, scan, judge.limit)
        return scan

    return on_rank_zero(trainer, finished, "it writes the files of the scan")


def _try_all(
    trainer: Trainer,
    measure: TrialRunner,
    targets: Sequence[Target],
    options: ScanOptions,
    table: Table,
    judge: MetricDrop,
) -> None:
    """Make the trials that the table does not have yet; it is written also if they are stopped.

    Each layer is tried by one of the processes.
    """
    trials = _every_level if options.curves else _bisection
    total = _trial_count(targets, options, table)

    def tried(number: int) -> bytes:
        new = []
        for ratio in trials(targets[number], options, table, judge):
            new.append(_tried(measure, targets[number], ratio))
            table.add(new[-1])
            advance()
        return encoded(new)

    def take(number: int, content: bytes) -> None:
        for row in decoded(content):
            if (row.layer, row.ratio) not in table.rows:
                table.add(row)
                advance()
        if trainer.is_global_zero:
            table.write()

    try:
        with progress_bar(trainer, total, "scan (trials)") as advance:
            share_out(trainer, len(targets), tried, take, "it tries layers")
    finally:
        table.sort([target.name for target in targets])
        if trainer.is_global_zero and table.rows:
            table.write()


def _tried(measure: TrialRunner, target: Target, ratio: Fraction) -> Row:
    """Make one trial, and return its row."""
    if ratio == 0:
        return Row(target.name, ratio, 0, target.units, measure.baseline)
    values, units = target.pruned(ratio)
    return Row(target.name, ratio, units, target.units, measure.scores(values))


#: The ratios to try; a consumer adds the row of each to the table before it takes the next.
Trials = Iterator[Fraction]


def _every_level(target: Target, options: ScanOptions, table: Table, judge: MetricDrop) -> Trials:
    """Yield every level of a layer that the table does not have."""
    for ratio in check_levels(options.levels):
        if (target.name, ratio) not in table.rows:
            yield ratio


def _bisection(target: Target, options: ScanOptions, table: Table, judge: MetricDrop) -> Trials:
    """Yield the few levels of a layer that find the largest ratio within the tolerance."""
    search = Bisection(check_levels(options.levels), options.tolerance)
    while (ratio := search.next) is not None:
        if (target.name, ratio) not in table.rows:
            yield ratio
        search.tell(judge.drop(table.rows[target.name, ratio]))


def _trial_count(targets: Sequence[Target], options: ScanOptions, table: Table) -> int:
    """Return about how many trials the table does not have."""
    levels = check_levels(options.levels)
    each = len(levels) if options.curves else max(1, len(levels).bit_length() - 1)
    done = sum((target.name, level) in table.rows for target in targets for level in levels)
    return max(each * len(targets) - done, 1)


def _targets(trainer: Trainer, module: LightningModule, options: ScanOptions) -> list[Target]:
    """Return the targets of a scan, with all layers at once first."""
    copy = clone(trainer, module)
    if options.granularity == "filter":
        example = find_example_inputs(trainer, copy, None)
        found = channel_targets(
            copy,
            example.inputs,
            example.submodule,
            importance=importance_of(options.importance),
            name=options.importance,
            include=options.include,
            exclude=options.exclude,
        )
    else:
        found = weight_targets(copy, options.granularity, options.include, options.exclude)
    return [found[-1], *found[:-1]]


def _settings(module: LightningModule, options: ScanOptions, sample: Sample) -> dict[str, Any]:
    """Return everything that the metrics in the rows of a scan depend on."""
    return {
        "format": 1,
        "granularity": options.granularity,
        "importance": options.importance if options.granularity == "filter" else "l2",
        "sample": sample.how,
        "data": _digest(tensor for batch in sample.batches for tensor in tensors_of(batch)),
        "weights": _digest(tensors_of(dict(module.state_dict()))),
    }


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    """Return the SHA-256 of the shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _choose(
    targets: Sequence[Target], options: ScanOptions, table: Table, judge: MetricDrop
) -> tuple[dict[str, Fraction], dict[str, float]]:
    """Return the largest ratio within the tolerance of each layer, and the drop at that ratio."""
    chosen: dict[str, Fraction] = {}
    drops: dict[str, float] = {}
    levels = check_levels(options.levels)
    for target in targets:
        own = {
            ratio: judge.drop(row)
            for (layer, ratio), row in table.rows.items()
            if layer == target.name and ratio in levels
        }
        chosen[target.name] = largest_tolerated(own, options.tolerance)
        drops[target.name] = own.get(chosen[target.name], 0.0)
    return chosen, drops
