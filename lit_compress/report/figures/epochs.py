"""Figures of a run over its epochs."""

from __future__ import annotations

from typing import Any

from lit_compress.artifact.card import Card
from lit_compress.artifact.history import Epoch
from lit_compress.report.figures.layers import first_layers, has_change, layers_by_epoch
from lit_compress.report.figures.style import (
    FIRST,
    QUIET,
    ROW,
    SECOND,
    new_figure,
    plain,
    shades,
    short,
    styled,
)

#: The most layers and columns of the heat map.
MOST_LAYERS, MOST_COLUMNS = 60, 100
#: Of more epochs than this, the time is a line and the metric has no marks.
MANY_EPOCHS = 100


def metric_over_epochs(card: Card) -> Any:
    """Return a figure of the metric, the share that was pruned, and the time of each epoch.

    Vertical lines mark the epochs that pruned.

    Args:
        card: The card of the run.

    Returns:
        The ``matplotlib.figure.Figure``; None if the card has no history.

    Example:
        >>> from lit_compress.artifact import Card, Variant
        >>> from lit_compress.artifact.history import Epoch
        >>> epochs = (Epoch(0, 2.0, 1000, metric=0.5), Epoch(1, 2.1, 500, metric=0.6, pruned=True))
        >>> figure = metric_over_epochs(Card("run", (Variant("dense", 1, 1),), {}, history=epochs))
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['metric', 'seconds']
    """
    if not card.history:
        return None
    parts = [_draw_metric, _draw_reached, _draw_seconds]
    present = [
        any(epoch.metric is not None for epoch in card.history),
        any(epoch.reached for epoch in card.history),
        True,
    ]
    parts = [part for part, shown in zip(parts, present, strict=True) if shown]
    with styled():
        figure = new_figure(0.6 + 1.5 * len(parts))
        rows = figure.subplots(len(parts), sharex=True, squeeze=False)[:, 0]
        for axes, part in zip(rows, parts, strict=True):
            part(axes, card)
            _mark_pruning(axes, card.history)
            axes.grid(axis="y")
        rows[-1].set_xlabel("epoch")
        rows[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def kept_channels_heat_map(card: Card) -> Any:
    """Return a heat map of the channels that each layer has after each epoch.

    A cell is the share of the channels that the layer had before pruning, or after the first
    recorded epoch if the card does not have the unpruned layers.

    Args:
        card: The card of the run.

    Returns:
        The ``matplotlib.figure.Figure``; None if the card has no channels of two
        points in time.

    Example:
        >>> from lit_compress.artifact import Card
        >>> kept_channels_heat_map(Card("run", (), {})) is None
        True
    """
    shares = channel_shares(card)
    if not shares or not has_change(card):
        return None
    names = list(shares)[:MOST_LAYERS]
    with styled():
        figure = new_figure(max(2.2, 1.0 + ROW * len(names)))
        axes = figure.subplots()
        columns = changed_epochs(card)
        edges = [*columns, len(card.history)]
        cells = [[_or_nan(shares[name][column]) for column in columns] for name in names]
        mesh = axes.pcolormesh(edges, range(len(names) + 1), cells, cmap=shades(), vmin=0, vmax=1)
        axes.set_yticks([row + 0.5 for row in range(len(names))], [short(n) for n in names])
        axes.invert_yaxis()
        step = -(-len(card.history) // 12)
        ticks = range(0, len(card.history), step)
        axes.set_xticks([t + 0.5 for t in ticks], [str(card.history[t].epoch) for t in ticks])
        axes.set_xlabel("epoch")
        figure.colorbar(mesh, ax=axes, label="share kept", fraction=0.04)
    return figure


def channel_shares(card: Card) -> dict[str, list[float | None]]:
    """Return the share of its channels before pruning that each layer has after each epoch.

    Example:
        >>> from lit_compress.artifact import Card
        >>> from lit_compress.artifact.history import Epoch, Layers
        >>> epochs = (Epoch(0, 1.0, 9), Epoch(1, 1.0, 9, layers=Layers({"a": 2})))
        >>> channel_shares(Card("run", (), {}, history=epochs, unpruned=Layers({"a": 8})))
        {'a': [None, 0.25]}
    """
    tables = [layers.channels for layers in layers_by_epoch(card)]
    return {
        name: [table[name] / count if name in table else None for table in tables]
        for name, count in first_layers(card).channels.items()
        if count
    }


def changed_epochs(card: Card) -> list[int]:
    """Return the places in the history at which a layer has other channels than before.

    The first place is one of them; of very many, each second, third and so on is left.

    Example:
        >>> from lit_compress.artifact import Card
        >>> from lit_compress.artifact.history import Epoch, Layers
        >>> layers = [Layers({"a": 8}), None, Layers({"a": 4}), None]
        >>> epochs = [Epoch(n, 1.0, 10, layers=found) for n, found in enumerate(layers)]
        >>> changed_epochs(Card("run", (), {}, history=tuple(epochs)))
        [0, 2]
    """
    tables = [layers.channels for layers in layers_by_epoch(card)]
    found = [n for n, table in enumerate(tables) if not n or table != tables[n - 1]]
    return found[:: max(1, -(-len(found) // MOST_COLUMNS))]


def _draw_metric(axes: Any, card: Card) -> None:
    points = [(epoch.epoch, epoch.metric) for epoch in card.history if epoch.metric is not None]
    marker = "o" if len(points) <= MANY_EPOCHS else None
    axes.plot(*zip(*points, strict=True), color=FIRST, marker=marker, markersize=3)
    axes.set_ylabel(short(metric_name(card)))


def _draw_reached(axes: Any, card: Card) -> None:
    count = max(len(epoch.reached) for epoch in card.history)
    for index in range(count):
        points = [(e.epoch, e.reached[index]) for e in card.history if len(e.reached) > index]
        style = {"color": (FIRST, SECOND)[index % 2], "linestyle": ("-", "--")[index // 2 % 2]}
        pruning = card.pruning[index] if index < len(card.pruning) else {}
        label = short(str(pruning.get("callback", f"callback {index + 1}")))
        axes.step(*zip(*points, strict=True), where="post", label=label, **style)
        if "target" in pruning:
            axes.axhline(pruning["target"], color=QUIET, linestyle=":", linewidth=1)
    axes.plot([], [], color=QUIET, linestyle=":", linewidth=1, label="target")
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("share pruned")
    axes.legend(loc="best", fontsize=8)


def _draw_seconds(axes: Any, card: Card) -> None:
    numbers, seconds = [e.epoch for e in card.history], [e.seconds for e in card.history]
    if len(numbers) <= MANY_EPOCHS:
        axes.bar(numbers, seconds, color=QUIET)
    else:
        axes.step(numbers, seconds, where="mid", color=QUIET)
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)


def _mark_pruning(axes: Any, history: tuple[Epoch, ...]) -> None:
    for epoch in history:
        if epoch.pruned:
            axes.axvline(epoch.epoch, color=SECOND, linewidth=0.8, alpha=0.6, zorder=0)


def metric_name(card: Card) -> str:
    """Return the name of a card's metric, ``metric`` if none was measured.

    Example:
        >>> from lit_compress.artifact import Card
        >>> metric_name(Card("run", (), {}))
        'metric'
    """
    return next((plain(v.metric.name) for v in card.variants if v.metric), "metric")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
