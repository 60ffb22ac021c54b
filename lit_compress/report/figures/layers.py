"""Figures with a row for each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lit_compress.artifact.card import Card
from lit_compress.artifact.history import Layers, with_layers
from lit_compress.artifact.variant import LayerFidelity
from lit_compress.report.figures.style import (
    FIRST,
    QUIET,
    ROW,
    SECOND,
    new_figure,
    short,
    styled,
)

#: The most layers that are drawn; the table below the figure has them all.
MOST_LAYERS = 30

#: By name of a layer, its channels or weights before pruning and after the last epoch.
Kept = dict[str, tuple[int, int]]


def sqnr_bars(card: Card) -> Any:
    """Return bars of the SQNR that each layer causes alone, weights and activations apart.

    Of many layers, the float ones and those with the lowest SQNR are drawn, in the order of the
    graph.

    Args:
        card: The card of the run.

    Returns:
        The ``matplotlib.figure.Figure``; None if no variant has the error of its layers.

    Example:
        >>> from lit_compress.artifact import Card
        >>> sqnr_bars(Card("run", (), {})) is None
        True
    """
    layers = _worst(noisy_layers(card))
    if not layers:
        return None
    names = [short(layer.name) + (" (float)" if layer.float else "") for layer in layers]
    with styled():
        figure = new_figure(0.8 + 1.3 * ROW * len(layers))
        axes = figure.subplots()
        _bars(axes, [layer.weight_db for layer in layers], FIRST, "weights in int8", -0.2)
        _bars(axes, [layer.activation_db for layer in layers], SECOND, "output in int8", 0.2)
        _rows(axes, names)
        axes.set_xlabel("SQNR of the network's outputs in dB, this layer alone (higher is better)")
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def kept_bars(card: Card) -> Any:
    """Return bars of the channels and weights that each layer kept.

    Of many layers, those that kept the smallest share of their weights are drawn.

    Args:
        card: The card of the run.

    Returns:
        The ``matplotlib.figure.Figure``; None if the card has no layers of two
        points in time.

    Example:
        >>> from lit_compress.artifact import Card
        >>> kept_bars(Card("run", (), {})) is None
        True
    """
    channels, weights = kept(card, "channels"), kept(card, "weights")
    every = list(dict.fromkeys([*channels, *weights]))
    if not every:
        return None
    sides = ((channels, FIRST, "channels", -0.2), (weights, SECOND, "weights", 0.2))
    ranked = sorted(every, key=lambda n: _share(weights, n) or _share(channels, n) or 0.0)
    names = [name for name in every if name in set(ranked[:MOST_LAYERS])]
    with styled():
        figure = new_figure(0.8 + 1.3 * ROW * len(names))
        axes = figure.subplots()
        for counts, colour, label, offset in sides:
            _bars(axes, [_share(counts, name) for name in names], colour, label, offset)
        _rows(axes, [short(name) for name in names])
        axes.set_xlim(0, 1)
        axes.set_xlabel("share kept after the last epoch")
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def kept(card: Card, kind: str) -> Kept:
    """Return what each layer had before pruning and after the last epoch.

    Args:
        card: The card of the run.
        kind: ``channels`` or ``weights``.

    Example:
        >>> from lit_compress.artifact import Card
        >>> from lit_compress.artifact.history import Epoch, Layers
        >>> epochs = (Epoch(0, 1.0, 5, layers=Layers({"a": 2})),)
        >>> kept(Card("run", (), {}, history=epochs, unpruned=Layers({"a": 8})), "channels")
        {'a': (8, 2)}
    """
    if not has_change(card):
        return {}
    first, last = getattr(first_layers(card), kind), getattr(layers_by_epoch(card)[-1], kind)
    return {name: (count, last[name]) for name, count in first.items() if name in last and count}


def has_change(card: Card) -> bool:
    """Tell whether a card has the layers at two points in time, so that they can be compared."""
    return len(card.history) > (card.unpruned is None)


def first_layers(card: Card) -> Layers:
    """Return what the layers had before pruning, or after the first epoch if that is not known.

    Example:
        >>> from lit_compress.artifact import Card
        >>> first_layers(Card("run", (), {}))
        Layers(channels={}, weights={})
    """
    return card.unpruned or next(iter(layers_by_epoch(card)), Layers())


def layers_by_epoch(card: Card) -> list[Layers]:
    """Return what the layers had after each epoch."""
    return [epoch.layers or Layers() for epoch in with_layers(card.history)]


def noisy_layers(card: Card) -> tuple[LayerFidelity, ...]:
    """Return the error of each layer alone, of the last variant that has it.

    Example:
        >>> from lit_compress.artifact import Card
        >>> noisy_layers(Card("run", (), {}))
        ()
    """
    found = [v.fidelity.layers for v in card.variants if v.fidelity and v.fidelity.layers]
    return found[-1] if found else ()


def worst_db(layer: LayerFidelity) -> float | None:
    """Return the lower SQNR of a layer's weights and output; None if neither is int8.

    Example:
        >>> from lit_compress.artifact.variant import LayerFidelity
        >>> worst_db(LayerFidelity("fc", weight_db=50.0, activation_db=None))
        50.0
    """
    known = [value for value in (layer.weight_db, layer.activation_db) if value is not None]
    return min(known) if known else None


def _worst(layers: Sequence[LayerFidelity]) -> list[LayerFidelity]:
    """Return the layers with the lowest SQNR in the order of the graph; float ones first."""
    known = [layer for layer in layers if layer.float or worst_db(layer) is not None]
    ranked = sorted(known, key=lambda layer: -math.inf if layer.float else worst_db(layer) or 0.0)
    shown = {id(layer) for layer in ranked[:MOST_LAYERS]}
    return [layer for layer in known if id(layer) in shown]


def _share(counts: Kept, name: str) -> float | None:
    return counts[name][1] / counts[name][0] if name in counts else None


def _bars(
    axes: Any, values: Sequence[float | None], colour: str, label: str, offset: float
) -> None:
    rows = [(row + offset, value) for row, value in enumerate(values) if value is not None]
    if rows:
        axes.barh(*zip(*rows, strict=True), height=0.38, color=colour, label=label)


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.grid(axis="x")
