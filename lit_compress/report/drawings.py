"""The figures of a run and of all runs with their numbers, each with the reason if it is absent."""

from __future__ import annotations

from collections.abc import Sequence

from lit_compress.artifact.card import Card
from lit_compress.artifact.variant import Variant
from lit_compress.report import figures
from lit_compress.report.content import Drawing, Run, Table
from lit_compress.report.figures.confusion import most_confused, row_shares, square
from lit_compress.report.figures.epochs import metric_name
from lit_compress.report.figures.size import Point, comparable
from lit_compress.report.layer_drawings import NO_HISTORY
from lit_compress.report.table import counted, human_bytes

#: The most classes whose confusion is a table; of more, it is a heat map.
MOST_CLASSES = 20


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
    return Drawing(name, title, _of_runs(runs, metric, points), figure, Table(title, rows))


def _of_runs(runs: Sequence[Run], metric: str, points: Sequence[Point]) -> str:
    """Return what a reader must know to compare the runs."""
    text = (
        f"{len(points)} runs; the numbers are those of the list above. The cards do not say "
        "whether the runs had the same data."
    )
    if left := [str(run.number) for run in runs if run.number not in {p.run for p in points}]:
        text += f" Not drawn, without the same metric or a file: {', '.join(left)}."
    if points[0].best is None:
        text += f" There is no front, as it is not known whether more of {metric} is better."
    return text


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
