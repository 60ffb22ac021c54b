"""The figures of the layers of a run with their numbers, each with the reason if it is absent."""

from __future__ import annotations

from lit_compress.artifact.card import Card
from lit_compress.report import figures
from lit_compress.report.content import Drawing, Table
from lit_compress.report.figures.epochs import MOST_LAYERS as MOST_ROWS
from lit_compress.report.figures.epochs import changed_epochs, channel_shares
from lit_compress.report.figures.layers import MOST_LAYERS, kept, noisy_layers, worst_db
from lit_compress.report.table import counted

NO_HISTORY = "the card has no history of epochs: its run had no CompressionReport, or is old"


def layer_drawings(card: Card, name: str) -> list[Drawing]:
    """Return what each layer kept, its channels over the epochs, and the SQNR of each layer.

    Args:
        card: The card of the run.
        name: Name of the run, for ids.

    Example:
        >>> from lit_compress.artifact import Card
        >>> [drawing.title for drawing in layer_drawings(Card("digits", (), {}), "run-1")][0]
        'Channels and weights kept'
    """
    return [_kept(card, name), _channels(card, name), _sqnr(card, name)]


def float_table(card: Card) -> Table | None:
    """Return the weights that are float in the last converted variant, with the reasons.

    Args:
        card: The card of the run.

    Returns:
        The table; None if no variant was converted, or all of its weights are int8.

    Example:
        >>> from lit_compress.artifact import Card
        >>> float_table(Card("digits", (), {})) is None
        True
    """
    found = [variant for variant in card.variants if variant.float_weights]
    if not found:
        return None
    rows = [["layer", "share of all weights", "why"]]
    rows += [[w.name, f"{w.share:.1%}", w.reason] for w in found[-1].float_weights]
    return Table(f"Weights of {found[-1].name} that are float", rows)


def _kept(card: Card, name: str) -> Drawing:
    title, name = "Channels and weights kept", f"{name}-kept"
    channels, weights = kept(card, "channels"), kept(card, "weights")
    names = list(dict.fromkeys([*channels, *weights]))
    if not names:
        why = "the card has the layers of one epoch alone" if card.history else NO_HISTORY
        return Drawing(name, title, absent=why)
    first = "before pruning" if card.unpruned else f"after epoch {card.history[0].epoch}"
    text = (
        f"What each layer has after epoch {card.history[-1].epoch}, as a share of what it had "
        f"{first}; "
        f"{counted(len(names), 'layer')}, at most {MOST_LAYERS} of them drawn."
    )
    rows = [["layer", "channels", "weights"]]
    rows += [[n, *(_change(counts.get(n)) for counts in (channels, weights))] for n in names]
    return Drawing(name, title, text, figures.kept_bars(card), Table(title, rows))


def _channels(card: Card, name: str) -> Drawing:
    title, name = "Channels over the epochs", f"{name}-channels"
    figure = figures.kept_channels_heat_map(card)
    if figure is None:
        why = "the card has the channels of one epoch alone" if card.history else NO_HISTORY
        return Drawing(name, title, absent=why)
    shares = channel_shares(card)
    columns = changed_epochs(card)
    rows = [["layer", *(f"epoch {card.history[column].epoch}" for column in columns)]]
    rows += [
        [layer, *("-" if values[c] is None else f"{values[c]:.0%}" for c in columns)]
        for layer, values in shares.items()
    ]
    text = (
        "Share of the channels of each layer after each epoch; "
        f"{counted(len(shares), 'layer')}, at most {MOST_ROWS} of them drawn. The table has the "
        "epochs that changed something."
    )
    return Drawing(name, title, text, figure, Table(title, rows))


def _sqnr(card: Card, name: str) -> Drawing:
    title, name = "Error of each layer in int8", f"{name}-sqnr"
    layers = noisy_layers(card)
    if not layers:
        return Drawing(name, title, absent="no variant has the error of its layers")
    floats = [layer.name for layer in layers if layer.float]
    worst = min(layers, key=lambda layer: worst_db(layer) or float("inf"))
    text = f"{counted(len(layers), 'layer')}; {worst.name} has the largest error. Float are: "
    text += f"{', '.join(floats) or 'none'}. At most {MOST_LAYERS} are drawn, the worst ones."
    rows = [["layer", "weights in int8, dB", "output in int8, dB", "in the file"]]
    rows += [
        [n.name, _db(n.weight_db), _db(n.activation_db), "float" if n.float else "int8"]
        for n in layers
    ]
    return Drawing(name, title, text, figures.sqnr_bars(card), Table(title, rows))


def _change(pair: tuple[int, int] | None) -> str:
    return "-" if pair is None else f"{pair[0]:,} to {pair[1]:,} ({pair[1] / pair[0]:.0%})"


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
