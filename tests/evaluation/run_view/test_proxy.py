"""A view reads as its object, and keeps what is written to it."""

from __future__ import annotations

import copy

import pytest

from lit_compress.evaluation.run_view.proxy import View, own_attributes, unviewed


class Counter:
    """Has what a Trainer has: attributes, a property, a setter, and methods that write."""

    start = 10

    def __init__(self) -> None:
        self.count = 1

    @property
    def total(self) -> int:
        return self.start + self.count

    @total.setter
    def total(self, value: int) -> None:
        self.count = value - self.start

    def add(self, number: int = 1) -> int:
        self.count += number
        return self.total


def test_a_view_reads_as_its_object() -> None:
    real = Counter()
    view = View(real)
    assert isinstance(view, Counter)
    assert (view.count, view.start, view.total) == (1, 10, 11)
    assert view == real
    assert hash(view) == hash(real)
    assert repr(view) == repr(real)
    assert unviewed(view) is real
    assert unviewed(real) is real
    assert copy.deepcopy(view) is view
    with pytest.raises(AttributeError):
        view.missing  # noqa: B018


def test_what_is_written_stays_on_the_view() -> None:
    real = Counter()
    view = View(real)
    view.count = 5
    assert view.add(2) == 17
    view.total = 30
    assert (view.count, view.total) == (20, 30)
    assert (real.count, real.total) == (1, 11)
    assert own_attributes(view) == {"count": 20}
    assert vars(view) == {"count": 20}
    del view.count
    assert view.count == 1


def test_properties_and_methods_see_what_the_view_has_of_its_own() -> None:
    view = View(Counter(), start=100)
    assert view.total == 101
    assert view.add() == 102
    assert Counter.start == 10


def test_a_method_that_was_set_on_the_object_is_the_one_that_runs() -> None:
    """Lightning's compile and users' patches replace methods on the instance."""
    real = Counter()
    real.add = lambda number=1: -1  # type: ignore[method-assign]
    assert View(real).add() == -1
