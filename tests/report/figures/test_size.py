"""Runs by metric and size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_compress.artifact import Card, Metric, Variant
from lit_compress.report.figures import metric_against_size
from lit_compress.report.figures.size import comparable


def card(size: int | None, value: float, name: str = "val_acc", split: str = "val") -> Card:
    return Card("r", (Variant("int8", 1, 1, bytes=size, metric=Metric(name, value, split, 9)),), {})


def front(*cards: Card) -> list[int]:
    return [point.run for point in comparable(cards)[1] if point.best]


def test_the_front() -> None:
    assert front(card(100, 0.9), card(50, 0.8), card(60, 0.7), card(200, 0.9)) == [1, 2]


def test_less_is_better_for_a_loss() -> None:
    assert front(card(100, 0.9, "val_loss"), card(90, 0.2, "val_loss")) == [2]


def test_equal_runs_are_both_on_the_front() -> None:
    assert front(card(100, 0.9), card(100, 0.9)) == [1, 2]


def test_no_front_if_the_name_does_not_say_what_is_better() -> None:
    cards = [card(100, 0.9, "val_thing"), card(90, 0.2, "val_thing")]
    assert [point.best for point in comparable(cards)[1]] == [None, None]
    assert len(metric_against_size(cards).axes[0].lines) == 0


def test_only_the_same_metric_and_split_are_compared() -> None:
    cards = [card(9, 0.1, split="test"), card(100, 0.9), card(90, 0.8), card(None, 0.7)]
    name, points = comparable(cards)
    assert (name, [point.run for point in points]) == ("val_acc", [2, 3])


def test_the_last_measured_variant_counts() -> None:
    metric = Metric("val_acc", 0.5, "val", 9)
    variants = (Variant("dense", 1, 1, bytes=10, metric=metric), Variant("int8", 1, 1, bytes=5))
    assert comparable([Card("r", variants, {})])[1][0].name == "dense"


@pytest.mark.parametrize(("sizes", "scale"), [((100, 200), "linear"), ((100, 2000), "log")])
def test_the_scale(sizes: tuple[int, int], scale: str) -> None:
    axes = metric_against_size([card(size, 0.5) for size in sizes]).axes[0]
    assert axes.get_xscale() == scale
    assert [text.get_text() for text in axes.texts] == ["1", "2"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=8))
def test_the_front_is_what_no_other_beats(pairs: list[tuple[int, int]]) -> None:
    points = comparable([card(size, value / 10) for size, value in pairs])[1]
    for point, (size, value) in zip(points, pairs, strict=True):
        beaten = any(s <= size and v >= value and (s, v) != (size, value) for s, v in pairs)
        assert point.best is not beaten
