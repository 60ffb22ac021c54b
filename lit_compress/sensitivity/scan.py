"""Sensitivity scans: how much each layer can lose before the user's own metric drops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tqdm import tqdm

from lit_compress.errors import InvalidArgumentError, ScanError
from lit_compress.evaluation.example_inputs import find_example_inputs
from lit_compress.evaluation.loaders import validation_loaders
from lit_compress.evaluation.validate import check_monitor, clone
from lit_compress.pruning.importance import importance_of, refuse_nan
from lit_compress.pruning.rules.files import write_rules
from lit_compress.sensitivity import figure
from lit_compress.sensitivity.calls import tensors_of
from lit_compress.sensitivity.options import ScanOptions
from lit_compress.sensitivity.sample import Sample, draw
from lit_compress.sensitivity.table import Row, Table
from lit_compress.sensitivity.targets import (
    WHOLE,
    Bisection,
    Target,
    channel_targets,
    check_levels,
    largest_tolerated,
    rules_of,
    weight_targets,
)
from lit_compress.sensitivity.trials import TrialRunner

HANDLERS = "rules.yaml"


@dataclass(frozen=True)
class Scan:
    """What a scan found; print it as a table.

    Attributes:
        rows: What was tried, in order.
        baseline: What validation logs of the network as it is.
        chosen: By weight, the largest ratio that the tolerance allows.
        drops: By weight, how much the metric loses at that ratio.
        monitor: Name of the metric.
        folder: Where the files are.
        how: The sample, in words.
    """

    rows: tuple[Row, ...]
    baseline: Mapping[str, float]
    chosen: Mapping[str, Fraction]
    drops: Mapping[str, float]
    monitor: str
    folder: Path
    how: str

    def __str__(self) -> str:
        width = max([5, *(len(name) for name in self.chosen)])
        lines = [f"{'layer':{width}}  largest ratio    drop"]
        for name, ratio in self.chosen.items():
            shown = "all layers" if name == WHOLE else name
            lines.append(f"{shown:{width}}  {float(ratio):13g}  {self.drops[name]:6.4f}")
        lines.append(f"{self.monitor} {self.baseline[self.monitor]:.4f} on {self.how}")
        lines.append(f"rules: {self.folder / HANDLERS}")
        return "\n".join(lines)


def scan_network(
    trainer: Trainer,
    module: LightningModule,
    options: ScanOptions,
    folder: Path,
    progress: bool = True,
) -> Scan:
    """Scan the network of a Trainer that has just validated it; nothing is changed in it.

    Args:
        trainer: Knows the data.
        module: The user's module.
        options: What to scan.
        folder: Where the table, the rules and the curves go; a scan that was stopped goes on there.
        progress: Whether to show a bar.

    Raises:
        ScanError: If there is no validation data, or the folder holds another scan.
        InvalidArgumentError: If the metric is not logged.
        PatternError: If a pattern matches nothing, or a weight holds NaN.
    """
    loaders = validation_loaders(trainer)
    if not loaders:
        raise ScanError("there is no validation data to scan on: give the datamodule some")
    if len(loaders) > 1:
        rank_zero_warn(f"scan: of {len(loaders)} validation loaders, the first is used")
    refuse_nan({n: p for n, p in module.named_parameters() if p.is_floating_point()})
    sample = draw(loaders[0], options.images, options.seed)
    targets = _targets(trainer, module, options)
    measure = TrialRunner(trainer, module, sample, [target.tensors for target in targets])
    monitor = _monitor(options.monitor, measure.baseline)
    if measure.baseline[monitor] != measure.baseline[monitor]:
        raise ScanError(f"{monitor} is NaN of the network as it is: there is nothing to lose")
    table = Table.opened(folder, _settings(module, options, sample))
    judge = MetricDrop(monitor, options, measure.baseline[monitor])
    rank_zero_info(f"scan: {len(targets) - 1} layers, {sample.how}")
    trials = _curves if options.curves else _bisected
    try:
        with _bar(trials, targets, options, table, progress) as bar:
            for target, ratio in trials(targets, options, table, judge):
                _try(measure, table, target, ratio)
                bar.update()
    finally:
        if table.rows:
            table.write()
    return _finished(trainer, module, options, targets, table, measure.baseline, judge, sample.how)


def _try(measure: TrialRunner, table: Table, target: Target, ratio: Fraction) -> None:
    if ratio == 0:
        table.add(Row(target.name, ratio, 0, target.units, measure.baseline))
        return
    values, units = target.pruned(ratio)
    new_layer = all(layer != target.name for layer, _ in table.rows)
    table.add(Row(target.name, ratio, units, target.units, measure.scores(values)))
    if new_layer:
        table.write()


class MetricDrop:
    """Tells how much of the metric a row loses."""

    def __init__(self, monitor: str, options: ScanOptions, baseline: float) -> None:
        self.monitor = monitor
        lower = any(word in monitor.lower() for word in ("loss", "err", "mse", "mae", "perplex"))
        self.sign = -1 if options.mode == "min" or (options.mode == "auto" and lower) else 1
        self.baseline = baseline
        self.limit = baseline - self.sign * options.tolerance

    def drop(self, row: Row) -> float:
        """Return how much of the metric a row loses; infinity if the metric is NaN."""
        value = row.scores.get(self.monitor, float("nan"))
        drop = self.sign * (self.baseline - value)
        # Metrics are floats of 7 digits: 0.93 - 0.92 is not to be more than a tolerance of 0.01.
        return round(drop, 6) if drop == drop else float("inf")  # a diverged one is a total loss


Trials = Iterator[tuple[Target, Fraction]]


def _curves(
    targets: Sequence[Target], options: ScanOptions, table: Table, judge: MetricDrop
) -> Trials:
    for target in targets:
        for ratio in check_levels(options.levels):
            if (target.name, ratio) not in table.rows:
                yield target, ratio


def _bisected(
    targets: Sequence[Target], options: ScanOptions, table: Table, judge: MetricDrop
) -> Trials:
    for target in targets:
        search = Bisection(check_levels(options.levels), options.tolerance)
        while (ratio := search.next) is not None:
            if (target.name, ratio) not in table.rows:
                yield target, ratio
            search.tell(judge.drop(table.rows[target.name, ratio]))


def _bar(
    trials: Callable[..., Trials],
    targets: Sequence[Target],
    options: ScanOptions,
    table: Table,
    shown: bool,
) -> Any:
    levels = check_levels(options.levels)
    each = len(levels)
    if trials is _bisected:
        each = max(1, each.bit_length() - 1)
    done = sum((target.name, level) in table.rows for target in targets for level in levels)
    total = max(each * len(targets) - done, 1)
    return tqdm(total=total, desc="scan", unit="trial", disable=not shown or None)


def _targets(trainer: Trainer, module: LightningModule, options: ScanOptions) -> list[Target]:
    copy = clone(trainer, module)
    if options.granularity == "filter":
        example = find_example_inputs(trainer, copy, None)
        found = channel_targets(
            copy,
            example.inputs,
            example.submodule,
            importance_of(options.importance),
            options.importance,
            options.include,
            options.exclude,
        )
    else:
        found = weight_targets(copy, options.granularity, options.include, options.exclude)
    return [found[-1], *found[:-1]]


def _monitor(given: str | None, baseline: Mapping[str, float]) -> str:
    if given is not None:
        check_monitor(given, baseline)
        return given
    for word in ("acc", "f1", "auroc", "iou", "loss"):
        for name in baseline:
            if word in name.lower():
                rank_zero_info(f"scan: judged by {name}, the first key that looks like a metric")
                return name
    raise InvalidArgumentError(
        "give a monitor: none of the keys that validation_step logs looks like a metric "
        f"({', '.join(baseline) or 'it logs nothing'})"
    )


def _settings(module: LightningModule, options: ScanOptions, sample: Sample) -> dict[str, Any]:
    """Return what the rows of a scan depend on."""
    return {
        "format": 1,
        "granularity": options.granularity,
        "importance": options.importance if options.granularity == "filter" else "l2",
        "sample": sample.how,
        "data": _digest(tensor for batch in sample.batches for tensor in tensors_of(batch)),
        "weights": _digest(tensors_of(dict(module.state_dict()))),
    }


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _finished(
    trainer: Trainer,
    module: LightningModule,
    options: ScanOptions,
    targets: Sequence[Target],
    table: Table,
    baseline: Mapping[str, float],
    judge: MetricDrop,
    how: str,
) -> Scan:
    """Choose the ratios, and write rules and curves."""
    chosen: dict[str, Fraction] = {}
    losses: dict[str, float] = {}
    levels = check_levels(options.levels)
    for target in targets:
        drops = {
            ratio: judge.drop(row)
            for (layer, ratio), row in table.rows.items()
            if layer == target.name and ratio in levels
        }
        chosen[target.name] = largest_tolerated(drops, options.tolerance)
        losses[target.name] = drops.get(chosen[target.name], 0.0)
    scan = Scan(
        tuple(table.rows.values()), baseline, chosen, losses, judge.monitor, table.folder, how
    )
    notes = {n: f"{judge.monitor} loses {losses[n]:.4f}" for n in chosen if chosen[n]}
    write_rules(
        rules_of(chosen, targets), table.folder / HANDLERS, {**notes, "": _head(scan, options)}
    )
    if options.curves:
        _drawn(trainer, module, scan, judge.limit)
    return scan


def _head(scan: Scan, options: ScanOptions) -> str:
    return (
        f"The largest share that each layer alone can lose while {scan.monitor} loses at most "
        f"{options.tolerance:g}, without training; edit it as you like.\n"
        f"{scan.monitor} is {scan.baseline[scan.monitor]:.4f} on {scan.how}."
    )


def _drawn(trainer: Trainer, module: LightningModule, scan: Scan, limit: float) -> None:
    if not figure.can_draw():
        rank_zero_warn(
            "scan: there are no curves, since matplotlib is not installed "
            "(pip install 'lit-compress[plots]')"
        )
        return
    curves: dict[str, dict[Fraction, float]] = {}
    for row in scan.rows:
        if scan.monitor in row.scores:
            curves.setdefault(row.layer, {})[row.ratio] = row.scores[scan.monitor]
    title = f"{type(module).__name__}: {scan.how.partition(',')[0]}"
    drawn = figure.draw(curves, scan.monitor, title, limit)
    figure.save(drawn, scan.folder, "scan")
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure("sensitivity/curves", drawn, trainer.global_step)
