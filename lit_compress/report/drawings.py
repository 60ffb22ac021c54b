"""The figures of a run with their numbers, each with the reason if it is absent."""

from __future__ import annotations

from collections.abc import Sequence

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Variant
from lit_compress.report import figures
from lit_compress.report.content import Drawing, Run, Table
from lit_compress.report.figures.confusion import most_confused, row_shares, square
from lit_compress.report.figures.epochs import changed_epochs, channel_shares, metric_name
from lit_compress.report.figures.epochs import MOST_LAYERS as MOST_ROWS
from lit_compress.report.figures.layers import MOST_LAYERS, kept, noisy_layers, worst_db
from lit_compress.report.figures.size import comparable
from lit_compress.report.table import counted, human_bytes

NO_HISTORY = "the card has no history of epochs: its run had no CompressionReport, or is old"
#: The most classes whose confusion is a table; of more, it is a heat map.
MOST_CLASSES = 20


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


def training_drawing(card: Card, name: str) -> Drawing:
    """Return the metric and the schedule over the epochs.

    Args:
        card: The card of the run.
        name: Name of the run, for ids.

    Example:
        >>> from lit_compress.artifact import Card
        >>> training_drawing(Card("digits", (), {}), "run-1").table is None
        True
    """
    title, name = "Metric and schedule over the epochs", f"{name}-epochs"
    if not card.history:
        return Drawing(name, title, absent=NO_HISTORY)
    steps = [str(epoch.epoch) for epoch in card.history if epoch.pruned]
    seconds = sum(epoch.seconds for epoch in card.history)
    text = f"{counted(len(card.history), 'epoch')} in {seconds:.1f} seconds; "
    text += (
        f"vertical lines mark pruning, in epochs {', '.join(steps)}." if steps else "no pruning."
    )
    if all(epoch.metric is None for epoch in card.history):
        text += " No metric: no epoch of the history has one."
    rows = [["epoch", metric_name(card), "share pruned", "pruned", "seconds", "parameters"]]
    rows += [
        [
            str(epoch.epoch),
            "-" if epoch.metric is None else f"{epoch.metric:.4f}",
            ", ".join(f"{share:.2f}" for share in epoch.reached) or "-",
            "yes" if epoch.pruned else "no",
            f"{epoch.seconds:.1f}",
            f"{epoch.parameters:,}",
        ]
        for epoch in card.history
    ]
    return Drawing(name, title, text, figures.metric_over_epochs(card), Table(title, rows))


def confusion_drawings(card: Card, name: str) -> list[Drawing]:
    """Return the confusion of the first and the last variant.

    Args:
        card: The card of the run.
        name: Name of the run, for ids.

    Example:
        >>> from lit_compress.artifact import Card
        >>> confusion_drawings(Card("digits", (), {}), "run-1")
        []
    """
    ends = [*card.variants[:1], *card.variants[1:][-1:]]
    return [_confusion(v, f"{name}-confusion-{i}") for i, v in enumerate(ends, 1)]


def runs_drawing(runs: Sequence[Run]) -> Drawing:
    """Return the metric of all runs against the bytes of their files.

    Args:
        runs: The runs of the page.

    Example:
        >>> runs_drawing([]).absent[:21]
        'fewer than two runs h'
    """
    title, name = "Metric against size", "pareto"
    metric, points = comparable([run.card for run in runs])
    if len(points) < 2:
        why = "fewer than two runs have the same metric, on the same split, and a file"
        return Drawing(name, title, absent=why)
    text = (
        f"{len(points)} runs; the numbers are those of the list above. The cards do not say whether "
        "the runs had the same data."
    )
    if len(points) < len(runs):
        left = ", ".join(str(r.number) for r in runs if r.number not in {p.run for p in points})
        text += f" Not drawn, without the same metric or a file: {left}."
    if points[0].best is None:
        text += f" There is no front, as it is not known whether more of {metric} is better."
    words = {True: "yes", False: "no", None: "-"}
    rows = [["run", "name", "variant", metric, "on disk", "on the front"]]
    rows += [
        [
            str(point.run),
            runs[point.run - 1].title,
            point.name,
            f"{point.metric:.4f}",
            human_bytes(point.bytes),
            words[point.best],
        ]
        for point in points
    ]
    figure = figures.metric_against_size([run.card for run in runs])
    return Drawing(name, title, text, figure, Table(title, rows))


def _kept(card: Card, name: str) -> Drawing:
    title, name = "Channels and weights kept", f"{name}-kept"
    channels, weights = kept(card, "channels"), kept(card, "weights")
    names = list(dict.fromkeys([*channels, *weights]))
    if not names:
        why = "its history has no layers of two epochs" if card.history else NO_HISTORY
        return Drawing(name, title, absent=why)
    first, last = card.history[0].epoch, card.history[-1].epoch
    text = (
        f"What each layer has after epoch {last}, as a share of what it had after epoch {first}; "
        f"{counted(len(names), 'layer')}, at most {MOST_LAYERS} of them drawn."
    )
    rows = [["layer", "channels", "weights"]]
    rows += [[n, *(_change(counts.get(n)) for counts in (channels, weights))] for n in names]
    return Drawing(name, title, text, figures.kept_bars(card), Table(title, rows))


def _channels(card: Card, name: str) -> Drawing:
    title, name = "Channels over the epochs", f"{name}-channels"
    figure = figures.kept_channels_heat_map(card)
    if figure is None:
        why = "its history has no channels of two epochs" if card.history else NO_HISTORY
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


def _confusion(variant: Variant, name: str) -> Drawing:
    title, counts = f"Confusion of {variant.name}", square(variant.metric)
    if counts is None:
        has = variant.metric is not None and variant.metric.confusion is not None
        why = "its counts are not a square table" if has else "the card has no counts by class"
        return Drawing(name, title, absent=why)
    right = sum(counts[place][place] for place in range(len(counts)))
    text = f"{right:,} of {sum(map(sum, counts)):,} answers are right. Rows are labels, columns "
    text += "answers."
    if len(counts) > MOST_CLASSES:
        rows = [["label", "answer", "images"]]
        rows += [[str(label), str(answer), f"{n:,}"] for label, answer, n in most_confused(counts)]
        table = Table(f"The most frequent wrong answers of {variant.name}", rows)
        return Drawing(name, title, text, figures.confusion_heat_map(counts), table)
    rows = [["label", *map(str, range(len(counts)))]]
    rows += [[str(label), *(f"{n:,}" for n in row)] for label, row in enumerate(counts)]
    return Drawing(name, title, text, table=Table(title, rows, row_shares(counts)))


def _change(pair: tuple[int, int] | None) -> str:
    return "-" if pair is None else f"{pair[0]:,} to {pair[1]:,} ({pair[1] / pair[0]:.0%})"


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
