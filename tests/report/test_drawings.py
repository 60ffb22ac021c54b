"""The figures of a run and of all runs: their numbers, and the reasons where there are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lit_compress.artifact import Card, Metric, Variant
from lit_compress.report.content import Run
from lit_compress.report.drawings import (
    MOST_CLASSES,
    confusion_drawings,
    runs_drawing,
    training_drawing,
)
from report.cards import STEPS, full_card


def test_the_table_of_the_epochs_is_the_history() -> None:
    card = full_card()
    drawing = training_drawing(card, "run-1")
    assert drawing.table
    for row, epoch in zip(drawing.table.body, card.history, strict=True):
        shown = "-" if epoch.metric is None else f"{epoch.metric:.4f}"
        assert row[:2] == [str(epoch.epoch), shown]
        assert row[3] == ("yes" if epoch.epoch in STEPS else "no")
        assert row[5] == f"{epoch.parameters:,}"
    seconds = sum(epoch.seconds for epoch in card.history)
    assert drawing.text.startswith(f"9 epochs in {seconds:.1f} seconds; ")


def test_a_history_without_metric_says_so() -> None:
    card = full_card()
    bare = replace(card, history=tuple(replace(e, metric=None, pruned=False) for e in card.history))
    text = training_drawing(bare, "run-1").text
    assert "no pruning" in text
    assert "No metric" in text


def test_confusion_is_that_of_the_first_and_the_last_variant() -> None:
    before, after = confusion_drawings(full_card(), "run-1")
    assert (before.title, after.title) == ("Confusion of dense", "Confusion of int8")
    assert before.text.startswith("1,160 of 1,200 answers are right")
    assert after.table
    assert list(after.table.body[1]) == ["1", "40", "300", "60"]


def test_many_classes_are_a_heat_map_with_the_most_frequent_faults() -> None:
    pytest.importorskip("matplotlib")
    count = MOST_CLASSES + 1
    rows = [[9 if a == b else 0 for a in range(count)] for b in range(count)]
    rows[3][7] = 5
    metric = Metric("acc", 0.9, "val", 99, None, tuple(map(tuple, rows)))
    (drawing,) = confusion_drawings(Card("run", (Variant("dense", 1, 1, metric=metric),), {}), "r")
    assert drawing.figure is not None
    assert drawing.table
    assert list(drawing.table.body[0]) == ["3", "7", "5"]


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        (None, "no counts by class"),
        (Metric("acc", 0.5, "val", 4), "no counts by class"),
        (Metric("acc", 0.5, "val", 4, None, ((1, 2), (3,))), "not a square table"),
    ],
)
def test_why_there_is_no_confusion(metric: Metric | None, why: str) -> None:
    (drawing,) = confusion_drawings(Card("r", (Variant("dense", 1, 1, metric=metric),), {}), "r")
    assert drawing.figure is None
    assert why in drawing.absent


def test_runs_that_cannot_be_compared_are_named() -> None:
    runs = [Run(n, f"{n}/card.json", full_card(f"run {n}")) for n in (1, 2)]
    runs.append(Run(3, "3/card.json", Card("bare", (), {})))
    drawing = runs_drawing(runs)
    assert drawing.table
    assert [row[0] for row in drawing.table.body] == ["1", "2"]
    assert "Not drawn, without the same metric or a file: 3." in drawing.text
    assert "fewer than two runs" in runs_drawing(runs[2:]).absent
