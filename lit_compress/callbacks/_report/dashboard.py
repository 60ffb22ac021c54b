"""What the loggers of a run are told: curves over the epochs, and at the end the whole card."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_compress.artifact import Card, read_card
from lit_compress.artifact.history import Epoch
from lit_compress.artifact.write import CARD
from lit_compress.errors import ArtifactError
from lit_compress.evaluation.trainer_access import log_scalars
from lit_compress.pruning.layers import plain_weights
from lit_compress.report import card_scalars, card_table, figures
from lit_compress.sensitivity.figure import can_draw

#: Bins of a histogram of weights, of equal width: TensorBoard draws 30.
BINS = 64
#: First part of every tag of this package.
PREFIX = "compress/"


def boards(trainer: Trainer) -> list[TensorBoardLogger]:
    """Return the TensorBoard loggers of a run."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def log_layout(trainer: Trainer, monitor: str | None) -> None:
    """Let TensorBoard's *Custom Scalars* tab open on the curves of this package.

    Args:
        trainer: The run.
        monitor: Key of the monitored metric.
    """
    reached = f"{PREFIX}reached.*"
    charts = {
        "metric and share pruned": [re.escape(monitor), reached] if monitor else [reached],
        "channels of each layer": [f"{PREFIX}channels/.*"],
        "parameters and MACs that are left": [f"{PREFIX}parameters", f"{PREFIX}macs"],
        "seconds of each epoch": [f"{PREFIX}epoch_seconds"],
    }
    layout = {"compress": {title: ["Multiline", tags] for title, tags in charts.items()}}
    for logger in boards(trainer):
        logger.experiment.add_custom_scalars(layout)


def log_epoch(trainer: Trainer, epoch: Epoch) -> None:
    """Log the time of an epoch and, in a run that prunes, the channels of each layer."""
    scalars: dict[str, float] = {f"{PREFIX}epoch_seconds": epoch.seconds}
    if epoch.reached and epoch.layers is not None:
        scalars |= {f"{PREFIX}channels/{name}": n for name, n in epoch.layers.channels.items()}
    log_scalars(trainer, scalars)


def log_weights(trainer: Trainer, module: LightningModule) -> None:
    """Log a histogram of the weights of each layer: called before and after pruning."""
    for logger in boards(trainer):
        for name, weight in plain_weights(module).items():
            tag = f"{PREFIX}weights/{name.removesuffix('.weight')}"
            values = weight.detach().float().cpu()
            logger.experiment.add_histogram(tag, values, trainer.global_step, bins=BINS)


def log_card(trainer: Trainer, card: Card) -> None:
    """Log a card at the end of a run.

    TensorBoard gets the table and the hyperparameters, since a chart of one dot says nothing; all
    other loggers get the numbers.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            text = card_table(card).replace("\n", "\n    ")
            logger.experiment.add_text(f"{PREFIX}card", "    " + text, trainer.global_step)
            _log_hyperparameters(Path(logger.log_dir) / "compress", card)
        else:
            logger.log_metrics(card_scalars(card), step=trainer.global_step)
        logger.save()
    log_figures(trainer, card)


def hyperparameters(card: Card) -> dict[str, Any]:
    """Return what tells one compressed run from another, by name, for a table of runs.

    Args:
        card: The card.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> pruning = ({"callback": "FilterPruning", "target": 0.5, "reached": 0.5},)
        >>> hyperparameters(Card("digits", (Variant("int8", 1000, 990, bytes=1200),), {},
        ...                      pruning=pruning))
        {'FilterPruning target': 0.5, 'FilterPruning reached': 0.5, 'int8 bytes': 1200}
    """
    found: dict[str, Any] = {}
    for step in card.pruning:
        for word in ("target", "reached"):
            found[f"{step['callback']} {word}"] = step[word]
    for variant in card.variants[-1:]:
        if variant.metric is not None:
            found[f"{variant.name} {variant.metric.name}"] = variant.metric.value
        if variant.bytes is not None:
            found[f"{variant.name} bytes"] = variant.bytes
    return found


def _log_hyperparameters(folder: Path, card: Card) -> None:
    """Write them as a run of their own: TensorBoard reads only the first ones of a run."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    summaries: Any = hparams(hyperparameters(card), {})  # type: ignore[no-untyped-call]
    with SummaryWriter(str(folder)) as writer:
        for summary in summaries:
            writer.file_writer.add_summary(summary)


def log_figures(trainer: Trainer, card: Card) -> None:
    """Show the figures of a card in TensorBoard, if matplotlib is installed.

    Args:
        trainer: The run.
        card: Its card.
    """
    if not boards(trainer) or not can_draw():
        return
    drawn = {
        "metric_over_epochs": figures.metric_over_epochs(card),
        "kept_channels": figures.kept_channels_heat_map(card),
        "sqnr_by_layer": figures.sqnr_bars(card),
        "metric_against_size": figures.metric_against_size([*_other_cards(trainer, card), card]),
    }
    for logger in boards(trainer):
        for name, figure in drawn.items():
            if figure is not None:
                logger.experiment.add_figure(f"{PREFIX}{name}", figure, trainer.global_step)


def _other_cards(trainer: Trainer, card: Card) -> list[Card]:
    """Return the readable cards of other runs under the same name of the logger."""
    found = []
    for logger in boards(trainer):
        for path in sorted(Path(logger.root_dir).glob(f"*/artifact/{CARD}")):
            with suppress(ArtifactError):  # the card of another run is no fault of this one
                found.append(read_card(path.parent))
    return [other for other in found if other.run != card.run]
