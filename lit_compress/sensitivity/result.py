"""The result of a scan: its table, the rule file, and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from lit_compress.pruning.rules.files import write_rules
from lit_compress.sensitivity import figure
from lit_compress.sensitivity.options import ScanOptions
from lit_compress.sensitivity.table import Row
from lit_compress.sensitivity.targets import WHOLE, Target, rules_of

#: How :data:`WHOLE` is shown.
ALL = "all layers"
#: Name of the rule file in the folder of a scan.
RULES = "rules.yaml"


@dataclass(frozen=True)
class Scan:
    """The result of a scan; ``print`` shows it as a table.

    Attributes:
        rows: The trials, in order.
        baseline: The metrics of the network before pruning, by key.
        chosen: The largest ratio within the tolerance, by name of the layer; ``*`` stands
            for all layers at once.
        drops: The drop of the metric at that ratio, by the same names.
        monitor: Name of the metric.
        folder: Folder of the files.
        how: How the validation sample was drawn, in words.
    """

    rows: tuple[Row, ...]
    baseline: Mapping[str, float]
    chosen: Mapping[str, Fraction]
    drops: Mapping[str, float]
    monitor: str
    folder: Path
    how: str

    def __str__(self) -> str:
        width = max(len(ALL), *(len(name) for name in self.chosen))
        lines = [f"{'layer':{width}}  largest ratio    drop"]
        for name, ratio in self.chosen.items():
            label = ALL if name == WHOLE else name
            lines.append(f"{label:{width}}  {float(ratio):13g}  {self.drops[name]:6.4f}")
        lines.append(f"{self.monitor} {self.baseline[self.monitor]:.4f} on {self.how}")
        lines.append(f"rules: {self.folder / RULES}")
        return "\n".join(lines)


def write_rule_file(scan: Scan, options: ScanOptions, targets: Sequence[Target]) -> None:
    """Write the rule file, with the drop of each layer as a comment.

    Args:
        scan: The result.
        options: The options of the scan.
        targets: What was pruned on trial.
    """
    notes = {
        name: f"{scan.monitor} loses {scan.drops[name]:.4f}"
        for name, ratio in scan.chosen.items()
        if ratio
    }
    path = scan.folder / RULES
    write_rules(rules_of(scan.chosen, targets), path, {**notes, "": _head(scan, options)})


def _head(scan: Scan, options: ScanOptions) -> str:
    """Return the comment at the head of the rule file."""
    return (
        f"The largest share that each layer alone can lose while {scan.monitor} loses at most "
        f"{options.tolerance:g}, without training; edit it as you like.\n"
        f"{scan.monitor} is {scan.baseline[scan.monitor]:.4f} on {scan.how}."
    )


def draw_curves(trainer: Trainer, module: LightningModule, scan: Scan, limit: float) -> None:
    """Draw the curves into files and into TensorBoard, if matplotlib is installed.

    Args:
        trainer: The Trainer, for its loggers.
        module: The user's module, for its name.
        scan: The result.
        limit: The metric at which the tolerance ends.
    """
    if not figure.can_draw():
        rank_zero_warn(
            "scan: no curves are drawn, because matplotlib is not installed "
            "(pip install 'lit-compress[plots]')"
        )
        return
    curves = figure.curves_of(scan.rows, scan.monitor)
    title = f"{type(module).__name__}: {scan.how.partition(',')[0]}"
    drawn = figure.draw(curves, scan.monitor, title, limit)
    figure.save(drawn, scan.folder, "scan")
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure("compress/sensitivity", drawn, trainer.global_step)
